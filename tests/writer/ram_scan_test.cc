#include "writer/ram_scan.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/memory_mapping.h"
#include "io/sparse_file.h"
#include "tests/scratch_directory.h"
#include "tests/writer/small_guest.h"

namespace vmsave {
namespace {

std::vector<PageBitmap> ScanAll(const std::vector<RamBlock>& blocks) {
  const WorkPlan plan = PlanWork(blocks);
  ChunkScanner scanner;
  std::vector<PageBitmap> present = EmptyBitmaps(blocks);
  for (std::uint64_t number = 0; number < plan.chunk_count(); ++number) {
    const WorkChunk chunk = plan.chunk(number);
    scanner.Scan(blocks[chunk.block], chunk, present[chunk.block]);
  }
  return present;
}

blkcnt_t StorageBlocks(const FileDescriptor& file) {
  struct stat status {};
  EXPECT_EQ(::fstat(file.number(), &status), 0);
  return status.st_blocks;
}

// Every stretch of data: "[4096, 8192) ".
std::string DataOf(const FileDescriptor& file) {
  std::string all;
  const FileOffset end{FileLength(file).value()};
  for (auto data = NextData(file, FileOffset{0}, end); data; data = NextData(file, data->end, end)) {
    all += "[" + std::to_string(data->begin.value()) + ", " + std::to_string(data->end.value()) + ") ";
  }
  return all;
}

// A block in a file of which only some bytes were ever written.
class BackedBlock {
 public:
  explicit BackedBlock(FileDescriptor file, FileOffset start, std::uint64_t pages)
      : file_(std::move(file)),
        memory_(MemoryMapping::OfFile(file_, start, ByteCount{pages * kPageBytes}, MemoryMapping::Access::kReadWrite)),
        block_{"pc.ram", memory_.bytes(), std::nullopt, &file_, start} {}

  explicit BackedBlock(std::uint64_t pages)
      : BackedBlock(MakeMemoryFile(ByteCount{pages * kPageBytes}), FileOffset{0}, pages) {}

  void Put(std::uint64_t page, std::byte value, std::uint64_t at = 0) {
    memory_.bytes()[page * kPageBytes + at] = value;
  }
  const RamBlock& block() const { return block_; }
  const FileDescriptor& file() const { return file_; }
  PageBitmap Scan() const { return ScanAll({block_}).front(); }

 private:
  FileDescriptor file_;
  MemoryMapping memory_;
  RamBlock block_;
};

TEST(RamScanTest, FindsWhatAPlainLoopFinds) {
  const SmallGuest guest;
  const std::vector<PageBitmap> present = ScanAll(guest.image().blocks);
  for (std::size_t block = 0; block < present.size(); ++block) {
    for (std::uint64_t page = 0; page < present[block].pages(); ++page) {
      ASSERT_EQ(present[block].Test(page), guest.IsPresent(block, page)) << block << ":" << page;
    }
  }
}

TEST(RamScanTest, LeavesUntouchedPagesUntouched) {
  BackedBlock guest(3 * kWorkPages);
  guest.Put(5, std::byte{1});
  guest.Put(kWorkPages + 70, std::byte{1});
  const std::string data_before = DataOf(guest.file());
  const blkcnt_t before = StorageBlocks(guest.file());
  EXPECT_EQ(guest.Scan().CountSet(), 2U);
  EXPECT_EQ(StorageBlocks(guest.file()), before);
  EXPECT_EQ(DataOf(guest.file()), data_before);
}

TEST(RamScanTest, SeesBothSidesOfAHoleInTheMiddle) {
  BackedBlock guest(2 * kWorkPages);
  for (std::uint64_t page = 0; page < 2 * kWorkPages; ++page) guest.Put(page, std::byte{7});
  const FileRange hole{FileOffset{100 * kPageBytes}, FileOffset{(kWorkPages + 30) * kPageBytes}};
  ASSERT_TRUE(PunchHole(guest.file(), hole));
  const PageBitmap present = guest.Scan();
  EXPECT_EQ(present.CountSet(0, 100), 100U);
  EXPECT_EQ(present.CountSet(100, kWorkPages + 30), 0U);
  EXPECT_EQ(present.CountSet(kWorkPages + 30, 2 * kWorkPages), kWorkPages - 30);
}

TEST(RamScanTest, CountsAPageOfWrittenZerosAsAbsent) {
  BackedBlock guest(10);
  guest.Put(3, std::byte{0});
  guest.Put(4, std::byte{1});
  EXPECT_EQ(TouchedBytes(guest.block()), ByteCount{2 * kPageBytes});
  const PageBitmap present = guest.Scan();
  EXPECT_FALSE(present.Test(3));
  EXPECT_TRUE(present.Test(4));
}

TEST(RamScanTest, CountsBothPagesOfDataThatStraddlesThem) {
  const FileDescriptor file = MakeMemoryFile(ByteCount{4 * kPageBytes});
  const std::vector<std::byte> straddling(2, std::byte{1});
  WriteAt(file, straddling, FileOffset{2 * kPageBytes - 1});
  const MemoryMapping memory =
      MemoryMapping::OfFile(file, FileOffset{0}, ByteCount{4 * kPageBytes}, MemoryMapping::Access::kRead);
  const PageBitmap present = ScanAll({{"pc.ram", memory.bytes(), std::nullopt, &file, FileOffset{0}}}).front();
  EXPECT_EQ(present.Encode().front(), std::byte{0b0110});
}

TEST(RamScanTest, LooksOnlyAtTheChunk) {
  BackedBlock guest(300);
  for (std::uint64_t page = 0; page < 300; ++page) guest.Put(page, std::byte{1});
  PageBitmap present(300);
  ChunkScanner().Scan(guest.block(), {0, 64, 130}, present);
  EXPECT_EQ(present.CountSet(), 66U);
  EXPECT_EQ(present.CountSet(64, 130), 66U);
}

TEST(RamScanTest, TakesChunksInAnyOrder) {
  const SmallGuest guest;
  const WorkPlan plan = PlanWork(guest.image().blocks);
  std::vector<PageBitmap> present = EmptyBitmaps(guest.image().blocks);
  ChunkScanner scanner;
  for (std::uint64_t number = plan.chunk_count(); number-- > 0;) {
    const WorkChunk chunk = plan.chunk(number);
    scanner.Scan(guest.image().blocks[chunk.block], chunk, present[chunk.block]);
  }
  const std::vector<PageBitmap> wanted = ScanAll(guest.image().blocks);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(present[i].Encode(), wanted[i].Encode());
}

// Who asks where a stretch of data ends lets the kernel walk over all of it (in a memfd, page by page). For each chunk,
// the time to save grew with the square of the guest's memory; for each channel, half of a save was spent with it.
TEST(RamScanTest, LooksAtNoMoreThanTheChunk) {
  BackedBlock guest(5 * kWorkPages);  // the last of it untouched
  for (std::uint64_t page = 0; page < 4 * kWorkPages; ++page) guest.Put(page, std::byte{1});
  ChunkScanner scanner;
  PageBitmap present(5 * kWorkPages);
  scanner.Scan(guest.block(), {0, 0, kWorkPages}, present);
  // A guest that is stopped does not do this; it shows what the scanner asks, since who looks at a hole fills it.
  ASSERT_TRUE(PunchHole(guest.file(), {FileOffset{0}, FileOffset{4 * kWorkPages * kPageBytes}}));
  scanner.Scan(guest.block(), {0, kWorkPages, 2 * kWorkPages}, present);
  EXPECT_EQ(TouchedBytes(guest.block()), ByteCount{0});
  EXPECT_EQ(present.CountSet(), kWorkPages);
}

TEST(RamScanTest, FindsDataThatIsNotInMemory) {
  const ScratchDirectory directory;
  FileDescriptor file = OpenFile(directory.Path("ram"), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(::ftruncate(file.number(), 64 * kPageBytes), 0);
  const std::vector<std::byte> page(kPageBytes, std::byte{1});
  for (const std::uint64_t number : {3, 40, 41}) WriteAt(file, page, FileOffset{number * kPageBytes});
  ASSERT_EQ(::fsync(file.number()), 0);
  ASSERT_EQ(::posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED), 0);

  const BackedBlock guest(std::move(file), FileOffset{0}, 64);
  EXPECT_EQ(guest.Scan().CountSet(), 3U);
}

TEST(RamScanTest, LooksAtAllOfPrivateMemory) {
  const SmallGuest guest({{"pc.ram", 130, SmallGuest::Place::kPrivate}});
  EXPECT_EQ(TouchedBytes(guest.image().blocks[0]), ByteCount{130 * kPageBytes});
  EXPECT_EQ(ScanAll(guest.image().blocks).front().CountSet(), guest.CountPresent());
}

TEST(RamScanTest, FindsNothingInABlockThatIsOneHole) {
  const BackedBlock guest(200);
  EXPECT_EQ(TouchedBytes(guest.block()), ByteCount{0});
  EXPECT_EQ(guest.Scan().CountSet(), 0U);
  EXPECT_EQ(StorageBlocks(guest.file()), 0);
}

TEST(RamBlockTest, KnowsAtOnceHowMuchIsTouchedAtMost) {
  BackedBlock guest(64);
  EXPECT_EQ(MostTouchedBytes(guest.block()), ByteCount{0});
  guest.Put(7, std::byte{1});
  EXPECT_GE(MostTouchedBytes(guest.block()), TouchedBytes(guest.block()));
  EXPECT_LE(MostTouchedBytes(guest.block()), guest.block().length());
}

TEST(RamBlockTest, TellsTouchedStretchesFromTheBlocksStart) {
  BackedBlock guest(MakeMemoryFile(ByteCount{40 * kPageBytes}), FileOffset{8 * kPageBytes}, 20);
  const std::byte outside{1};
  WriteAt(guest.file(), std::span(&outside, 1), FileOffset{0});
  WriteAt(guest.file(), std::span(&outside, 1), FileOffset{28 * kPageBytes});
  guest.Put(0, std::byte{1});
  guest.Put(19, std::byte{1}, kPageBytes - 1);
  const auto first = NextTouched(guest.block(), 0);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->begin, 0U);
  EXPECT_EQ(first->end, kPageBytes);
  const auto second = NextTouched(guest.block(), first->end);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->begin, 19 * kPageBytes);
  EXPECT_EQ(second->end, 20 * kPageBytes) << "data behind the block is not the block's";
  EXPECT_FALSE(NextTouched(guest.block(), second->end));
}

TEST(RamBlockTest, KnowsTheHolesOfAFileOnDisk) {
  const ScratchDirectory directory;
  FileDescriptor file = OpenFile(directory.Path("ram"), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(::ftruncate(file.number(), 64 * kPageBytes), 0);
  BackedBlock guest(std::move(file), FileOffset{0}, 64);
  guest.Put(40, std::byte{1});
  const auto touched = NextTouched(guest.block(), 0);
  ASSERT_TRUE(touched);
  if (touched->begin == 0) GTEST_SKIP() << "this file system does not tell holes";
  EXPECT_LE(touched->begin, 40 * kPageBytes);
  EXPECT_GE(touched->end, 41 * kPageBytes);
  EXPECT_EQ(guest.Scan().CountSet(), 1U);
}

TEST(GuestImageTest, AddsUpItsBlocks) {
  const SmallGuest guest;
  EXPECT_EQ(guest.image().ram_length(), ByteCount{(725 + 1 + 300) * kPageBytes});
}

}  // namespace
}  // namespace vmsave
