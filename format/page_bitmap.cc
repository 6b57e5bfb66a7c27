#include "format/page_bitmap.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "format/bytes.h"

namespace vmsave {
namespace {

// The bits of one word that stand for pages >= `from` (0..63).
constexpr std::uint64_t MaskFrom(std::uint64_t from) {
  return ~std::uint64_t{0} << from;
}

// Those of a word that begins with page `start`, of pages [from, to).
constexpr std::uint64_t MaskWithin(std::uint64_t start, std::uint64_t from, std::uint64_t to) {
  const std::uint64_t mask = from > start ? MaskFrom(from - start) : ~std::uint64_t{0};
  return to < start + 64 ? mask & ~MaskFrom(to - start) : mask;
}

// Calls change(number of the word, mask) for each stretch of pages of one word.
template <class Change>
void ForEachWord(std::span<const PageIndex> pages, const Change& change) {
  for (std::size_t i = 0; i < pages.size();) {
    const std::uint64_t word = pages[i].value() / 64;
    std::uint64_t mask = 0;
    for (; i < pages.size() && pages[i].value() / 64 == word; ++i) mask |= std::uint64_t{1} << (pages[i].value() % 64);
    change(word, mask);
  }
}

}  // namespace

void PageBitmap::SetShared(std::span<const PageIndex> pages) {
  ForEachWord(pages, [this](std::uint64_t word, std::uint64_t mask) {
    std::atomic_ref(words_[word]).fetch_or(mask, std::memory_order_relaxed);
  });
}

void PageBitmap::ClearShared(std::span<const PageIndex> pages) {
  ForEachWord(pages, [this](std::uint64_t word, std::uint64_t mask) {
    std::atomic_ref(words_[word]).fetch_and(~mask, std::memory_order_relaxed);
  });
}

std::uint64_t PageBitmap::CountSet() const {
  return CountSet(0, pages_);
}

std::uint64_t PageBitmap::CountSet(std::uint64_t from, std::uint64_t to) const {
  std::uint64_t count = 0;
  for (std::uint64_t start = from / 64 * 64; start < to; start += 64) {
    count += static_cast<std::uint64_t>(std::popcount(words_[start / 64] & MaskWithin(start, from, to)));
  }
  return count;
}

std::optional<PageRun> PageBitmap::NextPresent(std::uint64_t from, std::uint64_t to) const {
  // Finds the first page >= from whose bit, flipped by `flip`, is set; `to` if none.
  const auto find = [&](std::uint64_t page, std::uint64_t flip) {
    while (page < to) {
      const std::uint64_t word = (words_[page / 64] ^ flip) & MaskFrom(page % 64);
      const std::uint64_t word_start = page / 64 * 64;
      if (word != 0) return std::min(to, word_start + static_cast<std::uint64_t>(std::countr_zero(word)));
      page = word_start + 64;
    }
    return to;
  };
  const std::uint64_t first = find(from, 0);
  if (first >= to) return std::nullopt;
  return PageRun{first, find(first, ~std::uint64_t{0}) - first};
}

std::optional<std::uint64_t> PageBitmap::NextNotIn(const PageBitmap& other, std::uint64_t from,
                                                   std::uint64_t to) const {
  for (std::uint64_t start = from / 64 * 64; start < to; start += 64) {
    const std::uint64_t word = words_[start / 64] & ~other.words_[start / 64] & MaskWithin(start, from, to);
    if (word != 0) return start + static_cast<std::uint64_t>(std::countr_zero(word));
  }
  return std::nullopt;
}

std::uint64_t PageBitmap::CountNotIn(const PageBitmap& other, std::uint64_t from, std::uint64_t to) const {
  std::uint64_t count = 0;
  for (std::uint64_t start = from / 64 * 64; start < to; start += 64) {
    const std::uint64_t word = words_[start / 64] & ~other.words_[start / 64] & MaskWithin(start, from, to);
    count += static_cast<std::uint64_t>(std::popcount(word));
  }
  return count;
}

std::vector<std::byte> PageBitmap::Encode() const {
  ByteWriter writer;
  for (const std::uint64_t word : words_) writer.AppendLittleEndian(word);
  return writer.Take();
}

PageBitmap PageBitmap::Decode(std::uint64_t pages, std::span<const std::byte> bytes) {
  PageBitmap bitmap(pages);
  ByteReader reader(bytes, "page bitmap");
  for (std::uint64_t& word : bitmap.words_) word = reader.TakeLittleEndian<std::uint64_t>();
  if (pages % 64 != 0 && (bitmap.words_.back() & MaskFrom(pages % 64)) != 0) {
    throw Error(ErrorKind::kDamaged, "page bitmap", "it has pages behind the end of its block");
  }
  return bitmap;
}

}  // namespace vmsave
