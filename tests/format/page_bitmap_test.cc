#include "format/page_bitmap.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <thread>
#include <vector>

#include "format/mapped_ram.h"
#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

PageBitmap WithPages(std::uint64_t pages, std::initializer_list<std::uint64_t> present) {
  PageBitmap bitmap(pages);
  for (const std::uint64_t page : present) bitmap.Set(page);
  return bitmap;
}

TEST(PageBitmapTest, StartsWithAllPagesAbsent) {
  const PageBitmap bitmap(130);
  EXPECT_EQ(bitmap.CountSet(), 0U);
  EXPECT_FALSE(bitmap.NextPresent(0, 130));
}

TEST(PageBitmapTest, SetAndClearChangeOnePage) {
  PageBitmap bitmap = WithPages(130, {0, 63, 64, 129});
  EXPECT_TRUE(bitmap.Test(63));
  EXPECT_FALSE(bitmap.Test(62));
  bitmap.Clear(63);
  EXPECT_FALSE(bitmap.Test(63));
  EXPECT_TRUE(bitmap.Test(64));
  EXPECT_EQ(bitmap.CountSet(), 3U);
}

TEST(PageBitmapTest, TellsTheBitsOfAFewPages) {
  const PageBitmap bitmap = WithPages(70, {0, 15, 16, 63, 64, 69});
  EXPECT_EQ(bitmap.Bits(0, 16), 0x8001U);
  EXPECT_EQ(bitmap.Bits(16, 16), 0x0001U);
  EXPECT_EQ(bitmap.Bits(48, 16), 0x8000U);
  EXPECT_EQ(bitmap.Bits(64, 16), 0x0021U);
  EXPECT_EQ(bitmap.Bits(32, 32), 0x80000000U);
}

TEST(PageBitmapTest, SharedSetAndClearChangeThePagesNamedInAnyOrder) {
  PageBitmap bitmap = WithPages(200, {1, 64, 70});
  bitmap.SetShared(std::array{PageIndex{199}, PageIndex{3}, PageIndex{2}, PageIndex{64}, PageIndex{0}});
  EXPECT_TRUE(bitmap.Encode() == WithPages(200, {0, 1, 2, 3, 64, 70, 199}).Encode());
  bitmap.ClearShared(std::array{PageIndex{2}, PageIndex{70}, PageIndex{1}, PageIndex{5}});
  EXPECT_TRUE(bitmap.Encode() == WithPages(200, {0, 3, 64, 199}).Encode());
  bitmap.SetShared({});
  EXPECT_EQ(bitmap.CountSet(), 4U);
}

// Neighbouring pages of one word are changed by different threads at the same time.
TEST(PageBitmapTest, SharedSetAndClearLoseNoPageOfAnotherThread) {
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kPages = 20000;
  PageBitmap bitmap(kPages);
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&bitmap, thread] {
        for (std::uint64_t page = thread; page < kPages; page += kThreads) {
          bitmap.SetShared(std::array{PageIndex{page}});
          if (page % 3 == 0) bitmap.ClearShared(std::array{PageIndex{page}});
        }
      });
    }
  }
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(bitmap.Test(page), page % 3 != 0) << page;
}

TEST(PageBitmapTest, EncodesLowBitFirstInWholeWords) {
  EXPECT_EQ(ToHex(WithPages(2, {1}).Encode()), "0200000000000000");
  EXPECT_EQ(ToHex(WithPages(70, {0, 8, 63, 64, 69}).Encode()), "01010000000000802100000000000000");
  EXPECT_EQ(PageBitmap(0).Encode().size(), 0U);
}

TEST(PageBitmapTest, EncodedSizeIsTheLayoutsBitmapSize) {
  for (const std::uint64_t pages : {0U, 1U, 63U, 64U, 65U, 128U, 129U}) {
    EXPECT_EQ(PageBitmap(pages).encoded_size(), BitmapBytes(pages)) << pages;
    EXPECT_EQ(PageBitmap(pages).Encode().size(), BitmapBytes(pages)) << pages;
  }
}

TEST(PageBitmapTest, DecodesWhatItEncodes) {
  const PageBitmap bitmap = PageBitmap::Decode(70, Hex("01010000000000802100000000000000"));
  EXPECT_EQ(bitmap.pages(), 70U);
  EXPECT_EQ(ToHex(bitmap.Encode()), "01010000000000802100000000000000");
  EXPECT_TRUE(bitmap.Test(69));
}

TEST(PageBitmapTest, RefusesEveryBitBehindTheLastPage) {
  for (std::uint64_t bit = 70; bit < 128; ++bit) {
    ExpectDamaged([&] { PageBitmap::Decode(70, WithPages(128, {bit}).Encode()); }, "behind the end");
  }
  EXPECT_EQ(PageBitmap::Decode(64, Hex("ffffffffffffffff")).CountSet(), 64U);
}

TEST(PageBitmapTest, RefusesBytesThatEndEarly) {
  const Bytes whole = WithPages(70, {}).Encode();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    ExpectDamaged([&] { PageBitmap::Decode(70, std::span(whole).first(length)); }, "ends early");
  }
}

TEST(PageBitmapTest, RunsEndAtAbsentPagesAndAtTheLimit) {
  const PageBitmap bitmap = WithPages(200, {5, 6, 7, 62, 63, 64, 65, 199});
  const auto run = [&](std::uint64_t from, std::uint64_t to) {
    const auto found = bitmap.NextPresent(from, to);
    return found ? std::pair(found->first, found->count) : std::pair<std::uint64_t, std::uint64_t>(999, 0);
  };
  EXPECT_EQ(run(0, 200), std::pair(std::uint64_t{5}, std::uint64_t{3}));
  EXPECT_EQ(run(6, 200), std::pair(std::uint64_t{6}, std::uint64_t{2}));
  EXPECT_EQ(run(8, 200), std::pair(std::uint64_t{62}, std::uint64_t{4}));
  EXPECT_EQ(run(8, 64), std::pair(std::uint64_t{62}, std::uint64_t{2}));
  EXPECT_EQ(run(8, 62), std::pair(std::uint64_t{999}, std::uint64_t{0}));
  EXPECT_EQ(run(66, 200), std::pair(std::uint64_t{199}, std::uint64_t{1}));
  EXPECT_EQ(run(200, 200), std::pair(std::uint64_t{999}, std::uint64_t{0}));
}

TEST(PageBitmapTest, CountsAndRunsAgreeWithAPlainLoop) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t pages = 1 + random() % 300;
    PageBitmap bitmap(pages);
    for (std::uint64_t page = 0; page < pages; ++page) {
      if (random() % 4 != 0) bitmap.Set(page);
    }
    const std::uint64_t from = random() % pages;
    const std::uint64_t to = from + random() % (pages - from + 1);
    std::uint64_t count = 0;
    for (std::uint64_t page = from; page < to; ++page) count += bitmap.Test(page) ? 1 : 0;
    EXPECT_EQ(bitmap.CountSet(from, to), count);
    std::uint64_t in_runs = 0;
    for (auto run = bitmap.NextPresent(from, to); run; run = bitmap.NextPresent(run->first + run->count, to)) {
      ASSERT_LE(run->first + run->count, to);
      for (std::uint64_t i = 0; i < run->count; ++i) EXPECT_TRUE(bitmap.Test(run->first + i));
      in_runs += run->count;
    }
    EXPECT_EQ(in_runs, count);
  }
}

TEST(PageBitmapTest, WhatAnotherHasNotAgreesWithAPlainLoop) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 500; ++round) {
    const std::uint64_t pages = 1 + random() % 300;
    PageBitmap bitmap(pages);
    PageBitmap other(pages);
    for (std::uint64_t page = 0; page < pages; ++page) {
      if (random() % 4 != 0) bitmap.Set(page);
      if (random() % 16 != 0) other.Set(page);
    }
    const std::uint64_t from = random() % pages;
    const std::uint64_t to = from + random() % (pages - from + 1);
    std::vector<std::uint64_t> missing;
    for (std::uint64_t page = from; page < to; ++page) {
      if (bitmap.Test(page) && !other.Test(page)) missing.push_back(page);
    }
    EXPECT_EQ(bitmap.CountNotIn(other, from, to), missing.size());
    const auto first = missing.empty() ? std::nullopt : std::optional(missing.front());
    EXPECT_EQ(bitmap.NextNotIn(other, from, to), first);
  }
}

}  // namespace
}  // namespace vmsave
