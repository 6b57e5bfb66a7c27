#include "format/page_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "tests/format/golden.h"

namespace vmsave {
namespace {

// Published or computed with another build of XXH3-64.
TEST(PageHashTest, MatchesKnownValues) {
  EXPECT_EQ(Xxh3({}), 0x2d06800538d394c2U);
  EXPECT_EQ(Xxh3(AsBytes("abc")), 0x78af5f94892f3950U);
  EXPECT_EQ(Xxh3(golden::Page1()), golden::kPage1Hash);
  EXPECT_EQ(Xxh3(Join({golden::Page1(), golden::Page1()})), 0x4bdd498cfc5719baU);
  EXPECT_EQ(Xxh3(Bytes(65536)), 0x33b202d302b65caaU);
}

TEST(PageHashTest, PiecesHashLikeTheWhole) {
  const Bytes page = golden::Page1();
  for (const std::size_t piece : {1U, 7U, 255U, 256U, 4095U, 4096U}) {
    Xxh3Stream stream;
    for (std::size_t at = 0; at < page.size(); at += piece) {
      stream.Update(std::span(page).subspan(at, std::min(piece, page.size() - at)));
    }
    EXPECT_EQ(stream.Finish(), golden::kPage1Hash) << piece;
  }
}

TEST(PageHashTest, FinishStartsAnew) {
  Xxh3Stream stream;
  stream.Update(golden::Page1());
  EXPECT_EQ(stream.Finish(), golden::kPage1Hash);
  EXPECT_EQ(stream.Finish(), 0x2d06800538d394c2U);
  stream.Update(AsBytes("abc"));
  EXPECT_EQ(stream.Finish(), 0x78af5f94892f3950U);
}

TEST(PageHashTest, MoveKeepsWhatCameBefore) {
  Xxh3Stream first;
  first.Update(AsBytes("ab"));
  Xxh3Stream second(std::move(first));
  second.Update(AsBytes("c"));
  EXPECT_EQ(second.Finish(), 0x78af5f94892f3950U);
}

TEST(PageHashTest, EveryFlippedBitOfAPageChangesTheHash) {
  Bytes page = golden::Page1();
  for (std::size_t bit = 0; bit < page.size() * 8; bit += 61) {
    page[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_NE(Xxh3(page), golden::kPage1Hash) << bit;
    page[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

}  // namespace
}  // namespace vmsave
