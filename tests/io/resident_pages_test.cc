#include "io/resident_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/memory_mapping.h"
#include "tests/io/child_process.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kPages = 8;

FileDescriptor MakeMemoryFile() {
  FileDescriptor file(::memfd_create("pages", MFD_CLOEXEC), "pages");
  EXPECT_EQ(::ftruncate(file.number(), kPages * kPageBytes), 0);
  return file;
}

TEST(ResidentPagesTest, AreThoseThatWereTouchedByAnybody) {
  const FileDescriptor file = MakeMemoryFile();
  const MemoryMapping memory =
      MemoryMapping::OfFile(file, FileOffset{0}, ByteCount{kPages * kPageBytes}, MemoryMapping::Access::kRead);
  const std::byte touched{1};
  for (const std::uint64_t page : {2, 3, 6}) WriteAt(file, std::span(&touched, 1), FileOffset{page * kPageBytes});

  ResidentPages resident;
  resident.Look(memory.bytes());

  EXPECT_EQ(resident.CountFrom(0), 0U);
  EXPECT_EQ(resident.CountFrom(2), 2U);
  EXPECT_EQ(resident.CountFrom(3), 1U);
  EXPECT_EQ(resident.CountFrom(6), 1U);
  EXPECT_EQ(resident.CountFrom(kPages), 0U);
  struct stat status {};
  ASSERT_EQ(::fstat(file.number(), &status), 0);
  EXPECT_EQ(status.st_blocks, 3 * 8) << "looking has allocated pages";
}

TEST(ResidentPagesTest, AreNoneWhereNothingIsMapped) {
  ResidentPages resident;
  {
    const FileDescriptor file = MakeMemoryFile();
    const MemoryMapping memory =
        MemoryMapping::OfFile(file, FileOffset{0}, ByteCount{kPages * kPageBytes}, MemoryMapping::Access::kRead);
    const std::span<const std::byte> gone = memory.bytes();
    ASSERT_EQ(::munmap(const_cast<std::byte*>(gone.data()), gone.size()), 0);
    resident.Look(gone);
  }
  EXPECT_EQ(resident.CountFrom(0), 0U);
}

TEST(ResidentPagesTest, AreNotToldOfAnothersFile) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  const std::string said = InChild([]() -> std::string {
    const FileDescriptor file = MakeMemoryFile();
    if (!CanTellResidentPages(file)) return "not told of its own";
    constexpr uid_t kNobody = 65534;
    if (::fchmod(file.number(), 0644) != 0 || ::setuid(kNobody) != 0) return "cannot be another user";
    return CanTellResidentPages(file) ? "told" : "";
  });
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace vmsave
