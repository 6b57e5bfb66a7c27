// Checksums of chunks, made while their pages arrive over several channels and without a second look at them.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "format/page_bitmap.h"
#include "format/page_hash.h"
#include "format/units.h"

namespace vmsave {

// A chunk whose present pages come together, and only once, is hashed then. Of one whose pages come in more than one go
// it is only kept that this was so: nobody knows here which bytes the file has in the end. Nothing is locked.
class ArrivingChunks {
 public:
  // `hashes`: where they go, one for every chunk of each block, 0 at first.
  explicit ArrivingChunks(std::vector<std::span<std::uint64_t>> hashes);

  // These pages of one block came together, in this order and with these bytes. May be called from several threads at
  // once, each with an Xxh3Stream of its own.
  void Add(std::size_t block, std::span<const PageIndex> pages, std::span<const std::byte> bytes, Xxh3Stream& hash);

  // Whether the chunk's hash is the one of its present pages. REQUIRES: what Add did in other threads has happened
  // before.
  bool IsHashed(std::size_t block, std::uint64_t chunk, const PageBitmap& present) const;

 private:
  // 0: no page came. kHashed and one bit for each page: these came together, and their hash is in its place.
  using State = std::atomic<std::uint32_t>;
  static constexpr std::uint32_t kHashed = 1U << 16;
  static constexpr std::uint32_t kMixed = 1U << 17;  // pages came in more than one go

  std::vector<std::span<std::uint64_t>> hashes_;
  std::vector<std::vector<State>> states_;
};

}  // namespace vmsave
