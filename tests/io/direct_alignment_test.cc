#include "io/direct_alignment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <bit>
#include <cerrno>
#include <string>

#include "tests/io/child_process.h"
#include "tests/io/pattern_bytes.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

std::string MakeImage(const ScratchDirectory& scratch, std::size_t size) {
  std::string path = scratch.Path("image");
  WriteAt(OpenFile(path, O_RDWR | O_CREAT, 0600), PatternBuffer(size, 1).bytes(), FileOffset{0});
  return path;
}

TEST(DirectAlignmentTest, TransfersOfTheToldAlignmentWork) {
  const ScratchDirectory scratch;
  const FileDescriptor file = OpenDirect(MakeImage(scratch, 16 * kPageBytes), O_RDWR);
  const DirectAlignment alignment = AskDirectAlignment(file);
  EXPECT_TRUE(std::has_single_bit(alignment.memory));
  EXPECT_TRUE(std::has_single_bit(alignment.file_offset));
  EXPECT_LE(alignment.memory, kPageBytes);
  EXPECT_LE(alignment.file_offset, kPageBytes);

  AlignedBuffer buffer = PatternBuffer(alignment.memory + alignment.file_offset, 2);
  const std::span<std::byte> bytes = buffer.bytes().subspan(alignment.memory, alignment.file_offset);
  EXPECT_NO_THROW(WriteAt(file, bytes, FileOffset{alignment.file_offset}));
  EXPECT_NO_THROW(ReadAt(file, bytes, FileOffset{alignment.file_offset}));
}

TEST(DirectAlignmentTest, AssumesAPageWhereTheKernelDoesNotTell) {
  const ScratchDirectory scratch;
  const std::string path = MakeImage(scratch, 16 * kPageBytes);
  const std::string said = InChild([&]() -> std::string {
    const FileDescriptor file = OpenDirect(path, O_RDONLY);
    if (!FailSystemCall(SYS_statx, ENOSYS)) return kNotPermitted;
    const DirectAlignment alignment = AskDirectAlignment(file);
    const char* const source = alignment.source == AlignmentSource::kAssumed ? " assumed" : " told";
    return std::to_string(alignment.memory) + " " + std::to_string(alignment.file_offset) + source;
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "4096 4096 assumed");
}

TEST(DirectAlignmentTest, MakesSureWithAReadWhereTheKernelDoesNotTell) {
  const ScratchDirectory scratch;
  const std::string path = MakeImage(scratch, 16 * kPageBytes);
  const std::string said = InChild([&]() -> std::string {
    const FileDescriptor file = OpenDirect(path, O_RDONLY);
    if (!FailSystemCall(SYS_statx, ENOSYS) || !FailSystemCall(SYS_pread64, EINVAL)) return kNotPermitted;
    AskDirectAlignment(file);
    return "it worked";
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "cannot bypass the page cache for " + path +
                      ": the file system has no direct I/O (leave --bypass-cache out)");
}

TEST(DirectAlignmentTest, TrustsOpenForAFileThatCannotBeRead) {
  const ScratchDirectory scratch;
  const std::string path = MakeImage(scratch, 4096);
  const std::string said = InChild([&]() -> std::string {
    const FileDescriptor file = OpenDirect(path, O_WRONLY);
    if (!FailSystemCall(SYS_statx, ENOSYS)) return kNotPermitted;
    return std::to_string(AskDirectAlignment(file).memory);
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "4096");
}

TEST(OpenDirectTest, SaysThatTheFileSystemHasNoDirectIo) {
  try {
    OpenDirect("/proc/self/status", O_RDONLY);
    FAIL() << "procfs takes O_DIRECT";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFailed);
    EXPECT_STREQ(error.what(),
                 "cannot bypass the page cache for /proc/self/status: the file system has no direct I/O (leave "
                 "--bypass-cache out)");
  }
}

TEST(OpenDirectTest, SaysThatTheFileIsMissing) {
  const ScratchDirectory scratch;
  try {
    OpenDirect(scratch.Path("missing"), O_RDONLY);
    FAIL() << "opened a missing file";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "cannot open " + scratch.Path("missing") + ": No such file or directory");
  }
}

}  // namespace
}  // namespace vmsave
