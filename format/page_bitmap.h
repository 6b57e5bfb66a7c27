// One bit per page of a RAM block: set = present, clear = zero. On disk: bit i%8 of byte i/8, rounded up to 8 bytes
// (mapped-ram; QEMU migration/ram.c).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "format/units.h"

namespace vmsave {

// Neighbouring pages: `count` of them, from `first`.
struct PageRun {
  std::uint64_t first;
  std::uint64_t count;
};

// Different 64-page words may be changed by different threads at the same time, and by SetShared and ClearShared any.
class PageBitmap {
 public:
  PageBitmap() = default;
  explicit PageBitmap(std::uint64_t pages) : pages_(pages), words_((pages + 63) / 64) {}

  std::uint64_t pages() const { return pages_; }
  bool Test(std::uint64_t page) const { return (words_[page / 64] >> (page % 64) & 1) != 0; }
  void Set(std::uint64_t page) { words_[page / 64] |= std::uint64_t{1} << (page % 64); }
  void Clear(std::uint64_t page) { words_[page / 64] &= ~(std::uint64_t{1} << (page % 64)); }

  // Set and Clear of many pages, also while other threads use these two, atomically for each page but not for all of
  // them; pages that are neighbours in `pages` and in a word cost one operation. What they do has happened for another
  // thread only after the two have synchronised otherwise.
  void SetShared(std::span<const PageIndex> pages);
  void ClearShared(std::span<const PageIndex> pages);

  std::uint64_t CountSet() const;
  std::uint64_t CountSet(std::uint64_t from, std::uint64_t to) const;

  // The bits of `count` pages from `from` on, the first one lowest; 0 for pages behind the last. REQUIRES: `count` is a
  // power of two below 64, `from` a multiple of it, and there is a page `from`.
  std::uint64_t Bits(std::uint64_t from, std::uint64_t count) const {
    return words_[from / 64] >> (from % 64) & ((std::uint64_t{1} << count) - 1);
  }

  // The first run of present pages within [from, to), cut off at `to`.
  std::optional<PageRun> NextPresent(std::uint64_t from, std::uint64_t to) const;

  // Of pages [from, to): the first that is present here and not in `other`, which is of the same block; and how many
  // are.
  std::optional<std::uint64_t> NextNotIn(const PageBitmap& other, std::uint64_t from, std::uint64_t to) const;
  std::uint64_t CountNotIn(const PageBitmap& other, std::uint64_t from, std::uint64_t to) const;

  static std::size_t EncodedSize(std::uint64_t pages) { return (pages + 63) / 64 * 8; }
  std::size_t encoded_size() const { return words_.size() * 8; }
  std::vector<std::byte> Encode() const;

  // REQUIRES: bytes.size() == encoded_size() of a bitmap of that many pages. Throws Error{kDamaged} where a bit behind
  // the last page is set.
  static PageBitmap Decode(std::uint64_t pages, std::span<const std::byte> bytes);

 private:
  std::uint64_t pages_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace vmsave
