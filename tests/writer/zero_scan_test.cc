#include "writer/zero_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "format/units.h"
#include "io/aligned_buffer.h"

namespace vmsave {
namespace {

bool IsZeroPlainly(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

AlignedBuffer ZeroPages(std::uint64_t count) {
  AlignedBuffer pages(count * kPageBytes);
  std::ranges::fill(pages.bytes(), std::byte{0});
  return pages;
}

class ZeroScanTest : public testing::TestWithParam<ZeroScanKind> {
 protected:
  void SetUp() override {
    if (!CanRun(GetParam())) GTEST_SKIP() << "this CPU has no " << ZeroScanName(GetParam());
  }
};

TEST_P(ZeroScanTest, FindsOneByteAtEveryPositionOfAPage) {
  AlignedBuffer page = ZeroPages(1);
  for (std::byte& byte : page.bytes()) {
    byte = std::byte{0x80};
    ASSERT_FALSE(IsZero(page.bytes(), GetParam())) << "at " << &byte - page.bytes().data();
    byte = std::byte{0};
  }
  EXPECT_TRUE(IsZero(page.bytes(), GetParam()));
}

TEST_P(ZeroScanTest, FindsEveryBit) {
  AlignedBuffer page = ZeroPages(1);
  for (unsigned bit = 0; bit < 8; ++bit) {
    page.bytes()[2049] = std::byte{1} << bit;
    EXPECT_FALSE(IsZero(page.bytes(), GetParam())) << "bit " << bit;
  }
}

TEST_P(ZeroScanTest, DoesNotLookBesideTheBytes) {
  AlignedBuffer pages = ZeroPages(3);
  std::ranges::fill(pages.bytes(), std::byte{0xff});
  for (std::size_t size = 256; size <= kPageBytes; size += 256) {
    const auto middle = pages.bytes().subspan(kPageBytes, size);
    std::ranges::fill(middle, std::byte{0});
    EXPECT_TRUE(IsZero(middle, GetParam())) << size;
  }
}

TEST_P(ZeroScanTest, TakesUnalignedBytes) {
  AlignedBuffer pages = ZeroPages(2);
  for (std::size_t start = 0; start < 256; ++start) {
    const auto bytes = pages.bytes().subspan(start, 512);
    ASSERT_TRUE(IsZero(bytes, GetParam())) << start;
    bytes.front() = std::byte{1};
    ASSERT_FALSE(IsZero(bytes, GetParam())) << start;
    bytes.front() = std::byte{0};
    bytes.back() = std::byte{1};
    ASSERT_FALSE(IsZero(bytes, GetParam())) << start;
    bytes.back() = std::byte{0};
  }
}

TEST_P(ZeroScanTest, AgreesWithAPlainLoop) {
  std::mt19937_64 random(7);
  AlignedBuffer pages = ZeroPages(4);
  for (int round = 0; round < 500; ++round) {
    const std::size_t at = random() % pages.size();
    pages.bytes()[at] = static_cast<std::byte>(random() % 2);
    const std::size_t from = random() % (pages.size() / 256) * 256;
    const std::size_t size = (1 + random() % ((pages.size() - from) / 256)) * 256;
    const auto bytes = pages.bytes().subspan(from, size);
    ASSERT_EQ(IsZero(bytes, GetParam()), IsZeroPlainly(bytes)) << from << " " << size;
    if (round % 4 == 3) std::ranges::fill(pages.bytes(), std::byte{0});
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ZeroScanTest,
                         testing::Values(ZeroScanKind::kPortable, ZeroScanKind::kSse2, ZeroScanKind::kAvx2,
                                         ZeroScanKind::kAvx512),
                         [](const auto& shown) {
                           std::string name(ZeroScanName(shown.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST(PresentMaskTest, SetsTheBitOfEachPresentPage) {
  AlignedBuffer pages = ZeroPages(64);
  for (std::uint64_t count = 1; count <= 64; ++count) {
    const auto bytes = pages.bytes().first(count * kPageBytes);
    ASSERT_EQ(PresentMask(bytes), 0U) << count;
    for (std::uint64_t page = 0; page < count; ++page) {
      for (const std::uint64_t at : {page * kPageBytes, page * kPageBytes + kPageBytes - 1}) {
        bytes[at] = std::byte{1};
        ASSERT_EQ(PresentMask(bytes), std::uint64_t{1} << page) << "page " << page << " of " << count;
        bytes[at] = std::byte{0};
      }
    }
  }
}

TEST(PresentMaskTest, TellsAnyMixtureOfPages) {
  std::mt19937_64 random(3);
  AlignedBuffer pages = ZeroPages(64);
  for (std::uint64_t count = 1; count <= 64; ++count) {
    const std::uint64_t mask = random() & (~std::uint64_t{0} >> (64 - count));
    std::ranges::fill(pages.bytes(), std::byte{0});
    for (std::uint64_t page = 0; page < count; ++page) {
      if ((mask >> page & 1) != 0) pages.bytes()[page * kPageBytes + random() % kPageBytes] = std::byte{9};
    }
    EXPECT_EQ(PresentMask(pages.bytes().first(count * kPageBytes)), mask) << count;
  }
}

TEST(PresentMaskTest, OfNoPagesIsEmpty) {
  EXPECT_EQ(PresentMask({}), 0U);
}

TEST(BestZeroScanTest, CanBeRun) {
  EXPECT_TRUE(CanRun(BestZeroScan()));
  EXPECT_TRUE(CanRun(ZeroScanKind::kPortable));
}

}  // namespace
}  // namespace vmsave
