// Cuts the RAM of a guest into the chunks that channels take one at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "format/units.h"

namespace vmsave {

// The longest chunk of work. A multiple of 64 pages, so that no two share a word of a bitmap, and of the chunk that one
// hash covers.
inline constexpr std::uint64_t kWorkBytes = 1 << 20;
inline constexpr std::uint64_t kWorkPages = kWorkBytes / kPageBytes;

// Pages [first_page, end_page) of one block.
struct WorkChunk {
  std::size_t block;
  std::uint64_t first_page;
  std::uint64_t end_page;

  std::uint64_t pages() const { return end_page - first_page; }
  ByteCount length() const { return ByteCount{pages() * kPageBytes}; }

  friend bool operator==(const WorkChunk&, const WorkChunk&) = default;
};

// The n-th chunk of all blocks, reckoned and not listed. Immutable.
class WorkPlan {
 public:
  // `chunk_pages`: a multiple of kWorkPages.
  explicit WorkPlan(const std::vector<std::uint64_t>& pages_of_blocks, std::uint64_t chunk_pages = kWorkPages);
  std::uint64_t chunk_count() const { return first_chunk_.back(); }
  ByteCount length() const { return length_; }
  WorkChunk chunk(std::uint64_t number) const;
  // The number of the chunk that has this page of this block.
  std::uint64_t NumberOf(std::size_t block, std::uint64_t page) const {
    return first_chunk_[block] + page / chunk_pages_;
  }

 private:
  std::vector<std::uint64_t> first_chunk_;  // of each block; last, the count of all
  std::vector<std::uint64_t> pages_;
  std::uint64_t chunk_pages_;
  ByteCount length_;
};

// The chunks of blocks, each of which tells its pages().
template <class Block>
WorkPlan PlanWork(const std::vector<Block>& blocks, std::uint64_t chunk_pages = kWorkPages) {
  std::vector<std::uint64_t> pages;
  pages.reserve(blocks.size());
  for (const Block& block : blocks) pages.push_back(block.pages());
  return WorkPlan(pages, chunk_pages);
}

}  // namespace vmsave
