#include "writer/synthetic_guest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "format/page_hash.h"
#include "writer/ram_scan.h"

namespace vmsave {
namespace {

constexpr ByteCount kSize{4 << 20};

std::span<const std::byte> MemoryOf(const SyntheticGuest& guest) {
  return guest.image().blocks.front().memory;
}

std::uint64_t PresentPages(const SyntheticGuest& guest) {
  const RamBlock& block = guest.image().blocks.front();
  PageBitmap present(block.pages());
  ChunkScanner().Scan(block, {0, 0, block.pages()}, present);
  return present.CountSet();
}

TEST(SyntheticGuestTest, HasTheSameBytesForTheSameSeed) {
  const SyntheticGuest a({kSize, 30, 5});
  const SyntheticGuest b({kSize, 30, 5});
  EXPECT_TRUE(std::ranges::equal(MemoryOf(a), MemoryOf(b)));
  const SyntheticGuest c({kSize, 30, 6});
  EXPECT_FALSE(std::ranges::equal(MemoryOf(a), MemoryOf(c)));
}

TEST(SyntheticGuestTest, HasAboutTheShareOfZeroPagesThatWasAskedFor) {
  for (const unsigned percent : {0U, 25U, 50U, 100U}) {
    const SyntheticGuest guest({ByteCount{32 << 20}, percent, 1});
    const std::uint64_t pages = guest.image().ram_length().value() / kPageBytes;
    const double zero = 100.0 - 100.0 * static_cast<double>(PresentPages(guest)) / static_cast<double>(pages);
    EXPECT_NEAR(zero, percent, percent % 100 == 0 ? 0 : 8);
  }
}

TEST(SyntheticGuestTest, NeverTouchesItsZeroPages) {
  const SyntheticGuest guest({kSize, 50, 1});
  EXPECT_EQ(TouchedBytes(guest.image().blocks.front()), PagesToBytes(PageIndex{PresentPages(guest)}));
}

TEST(SyntheticGuestTest, HasNoTwoPresentPagesAlike) {
  const SyntheticGuest guest({kSize, 0, 1});
  std::set<std::uint64_t> hashes;
  for (std::size_t at = 0; at < kSize.value(); at += kPageBytes) {
    hashes.insert(Xxh3(MemoryOf(guest).subspan(at, kPageBytes)));
  }
  EXPECT_EQ(hashes.size(), kSize.value() / kPageBytes);
}

TEST(SyntheticGuestTest, MayBeOfOnePage) {
  const SyntheticGuest guest({kPageSize, 0, 1});
  EXPECT_EQ(guest.image().ram_length(), kPageSize);
  EXPECT_EQ(PresentPages(guest), 1U);
}

}  // namespace
}  // namespace vmsave
