#include "writer/ram_scan.h"

#include <algorithm>
#include <optional>

#include "io/sparse_file.h"
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

void ChunkScanner::Scan(const RamBlock& block, const WorkChunk& chunk, PageBitmap& present) {
  if (block.backing == nullptr) return ScanPages(block, chunk.first_page, chunk.end_page, present);
  TurnTo(block);
  for (std::uint64_t page = chunk.first_page; page < chunk.end_page;) {
    const Stretch stretch = StretchAt(page, chunk);
    const std::uint64_t end = std::min(stretch.end, chunk.end_page);
    if (stretch.touched) ScanPages(block, page, end, present);
    page = end;
  }
}

void ChunkScanner::TurnTo(const RamBlock& block) {
  if (block_ == &block) return;
  *this = {};
  block_ = &block;
  can_tell_resident_ = CanTellResidentPages(*block.backing);
  if (IsFull(*block.backing)) known_ = {0, block.pages(), true};
}

// Who is resident is asked first: that looks at the chunk alone. The end of a stretch of data the file tells only by
// walking over all of it (SEEK_HOLE), which each channel would do anew.
ChunkScanner::Stretch ChunkScanner::StretchAt(std::uint64_t page, const WorkChunk& chunk) {
  if (page >= known_.begin && page < known_.end) return known_;
  if (can_tell_resident_) {
    if (page < resident_begin_ || page >= resident_end_) {
      resident_begin_ = page;
      resident_end_ = chunk.end_page;
      resident_.Look(block_->memory.subspan(page * kPageBytes, (chunk.end_page - page) * kPageBytes));
    }
    const std::uint64_t count = resident_.CountFrom(page - resident_begin_);
    if (count > 0) return {page, page + count, true};
  }
  known_ = AskFile(page);
  return known_;
}

ChunkScanner::Stretch ChunkScanner::AskFile(std::uint64_t page) const {
  const FileOffset start = block_->backing_start;
  const FileOffset end = start + block_->length();
  const FileOffset from = start + PagesToBytes(PageIndex{page});
  const auto page_at = [start](FileOffset offset) { return (offset - start).value() / kPageBytes; };
  const std::optional<FileOffset> data = NextDataBegin(*block_->backing, from, end);
  if (!data) return {page, block_->pages(), false};
  if (*data > from) return {page, page_at(*data), false};
  const std::optional<FileRange> range = NextData(*block_->backing, from, end);
  return {page, range ? page_at(range->end) : block_->pages(), true};
}

}  // namespace vmsave
