#include "writer/ram_scan.h"

#include <algorithm>

#include "writer/zero_scan.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMaskPages = 64;

void ScanPages(const RamBlock& block, std::uint64_t first, std::uint64_t end, PageBitmap& present) {
  while (first < end) {
    const std::uint64_t count = std::min(kMaskPages, end - first);
    const std::uint64_t mask = PresentMask(block.memory.subspan(first * kPageBytes, count * kPageBytes));
    for (std::uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      present.Set(first + static_cast<std::uint64_t>(__builtin_ctzll(rest)));
    }
    first += count;
  }
}

}  // namespace

std::vector<PageBitmap> EmptyBitmaps(const std::vector<RamBlock>& blocks) {
  std::vector<PageBitmap> bitmaps;
  bitmaps.reserve(blocks.size());
  for (const RamBlock& block : blocks) bitmaps.emplace_back(block.pages());
  return bitmaps;
}

std::optional<TouchedRange> ChunkScanner::Touched(const RamBlock& block, std::uint64_t from) {
  if (block_ == &block && from >= last_.begin && from < last_.end) return TouchedRange{from, last_.end};
  const std::optional<TouchedRange> found = NextTouched(block, from);
  if (found) {
    block_ = &block;
    last_ = *found;
  }
  return found;
}

void ChunkScanner::Scan(const RamBlock& block, const WorkChunk& chunk, PageBitmap& present) {
  const std::uint64_t end = chunk.end_page * kPageBytes;
  auto range = Touched(block, chunk.first_page * kPageBytes);
  while (range && range->begin < end) {
    ScanPages(block, range->begin / kPageBytes, std::min(range->end, end) / kPageBytes, present);
    if (range->end >= end) return;
    range = Touched(block, range->end);
  }
}

}  // namespace vmsave
