#include "io/sparse_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kPages = 64;
constexpr FileOffset kEnd{kPages * kPageBytes};

FileOffset Page(std::uint64_t page) {
  return FileOffset{page * kPageBytes};
}

class SparseFileTest : public ::testing::Test {
 protected:
  SparseFileTest() : file_(OpenFile(scratch_.Path("sparse"), O_RDWR | O_CREAT, 0600)) {
    EXPECT_EQ(::ftruncate(file_.number(), static_cast<off_t>(kEnd.value())), 0);
  }

  void Write(std::uint64_t first_page, std::uint64_t pages) {
    WriteAt(file_, std::vector<std::byte>(pages * kPageBytes, std::byte{7}), Page(first_page));
  }

  ScratchDirectory scratch_;
  FileDescriptor file_;
};

TEST_F(SparseFileTest, EmptyFileIsOneHole) {
  EXPECT_FALSE(NextData(file_, FileOffset{0}, kEnd));
}

TEST_F(SparseFileTest, FindsEachStretchOfData) {
  Write(10, 2);
  Write(40, 3);
  const auto first = NextData(file_, FileOffset{0}, kEnd);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->begin, Page(10));
  EXPECT_EQ(first->end, Page(12));
  const auto second = NextData(file_, first->end, kEnd);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->begin, Page(40));
  EXPECT_EQ(second->end, Page(43));
  EXPECT_FALSE(NextData(file_, second->end, kEnd));
}

TEST_F(SparseFileTest, StretchIsCutOffAtTheLimitsAskedFor) {
  Write(10, 20);
  const auto data = NextData(file_, Page(12), Page(15));
  ASSERT_TRUE(data);
  EXPECT_EQ(data->begin, Page(12));
  EXPECT_EQ(data->end, Page(15));
  EXPECT_FALSE(NextData(file_, Page(0), Page(10)));
}

TEST_F(SparseFileTest, NothingIsAskedForInAnEmptyRange) {
  Write(0, kPages);
  EXPECT_FALSE(NextData(file_, Page(3), Page(3)));
}

TEST_F(SparseFileTest, ARangeHoldsDataWhereAnyOfItsPagesDoes) {
  Write(10, 2);
  EXPECT_TRUE(HoldsData(file_, {FileOffset{0}, kEnd}));
  EXPECT_TRUE(HoldsData(file_, {Page(11), Page(12)}));
  EXPECT_TRUE(HoldsData(file_, {Page(0), Page(11)}));
  EXPECT_FALSE(HoldsData(file_, {Page(0), Page(10)}));
  EXPECT_FALSE(HoldsData(file_, {Page(12), kEnd}));
  EXPECT_FALSE(HoldsData(file_, {Page(11), Page(11)}));
}

TEST_F(SparseFileTest, NoDataLieBehindTheFilesEnd) {
  Write(kPages - 1, 1);
  EXPECT_FALSE(HoldsData(file_, {kEnd, kEnd + kPageSize}));
}

TEST_F(SparseFileTest, CountsDataAndNoHoles) {
  EXPECT_EQ(CountData(file_, {FileOffset{0}, kEnd}, ByteCount{1}), ByteCount{0});
  Write(10, 2);
  Write(40, 3);
  constexpr ByteCount kAll{~std::uint64_t{0}};
  EXPECT_EQ(CountData(file_, {FileOffset{0}, kEnd}, kAll), ByteCount{5 * kPageBytes});
  EXPECT_EQ(CountData(file_, {Page(11), Page(42)}, kAll), ByteCount{3 * kPageBytes});
  EXPECT_EQ(CountData(file_, {Page(20), Page(40)}, kAll), ByteCount{0});
}

TEST_F(SparseFileTest, CountsNoMoreDataThanIsEnough) {
  for (std::uint64_t page = 0; page < kPages; page += 2) Write(page, 1);
  if (CountData(file_, {FileOffset{0}, kEnd}, ByteCount{~std::uint64_t{0}}) == kEnd - FileOffset{0}) {
    GTEST_SKIP() << "this file system makes no holes of one page";
  }
  EXPECT_EQ(CountData(file_, {FileOffset{0}, kEnd}, ByteCount{3 * kPageBytes}), ByteCount{3 * kPageBytes});
}

TEST_F(SparseFileTest, PunchedRangeReadsAsZerosAndIsAHole) {
  Write(0, kPages);
  if (!PunchHole(file_, {Page(8), Page(16)})) GTEST_SKIP() << "this file system cannot punch holes";
  std::vector<std::byte> bytes(8 * kPageBytes);
  ReadAt(file_, bytes, Page(8));
  EXPECT_EQ(bytes, std::vector<std::byte>(8 * kPageBytes));
  const auto data = NextData(file_, Page(8), kEnd);
  ASSERT_TRUE(data);
  EXPECT_EQ(data->begin, Page(16));
  EXPECT_EQ(FileLength(file_).value(), kEnd.value());
}

TEST_F(SparseFileTest, PunchingAReadOnlyFileIsAnError) {
  const FileDescriptor read_only = OpenFile(scratch_.Path("sparse"), O_RDONLY);
  EXPECT_THROW(PunchHole(read_only, {Page(0), Page(1)}), Error);
}

}  // namespace
}  // namespace vmsave
