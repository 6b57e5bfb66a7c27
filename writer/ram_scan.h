// Finds the present pages of a guest's RAM.
#pragma once

#include <optional>
#include <vector>

#include "format/page_bitmap.h"
#include "format/work_plan.h"
#include "writer/ram_block.h"

namespace vmsave {

// One bitmap for each block, empty.
std::vector<PageBitmap> EmptyBitmaps(const std::vector<RamBlock>& blocks);

// Sets the bits of a chunk's present pages. Pages that the backing file does not hold are zero and are not looked at,
// so that they stay untouched. Made for chunk after chunk: it remembers the touched stretch that it found last, since
// the kernel walks over all of one to tell where it ends (SEEK_HOLE). One thread's. The guest must stay stopped as long
// as it is used.
class ChunkScanner {
 public:
  void Scan(const RamBlock& block, const WorkChunk& chunk, PageBitmap& present);

 private:
  // The first touched stretch that ends behind `from`, cut off in front of it; nothing where the rest is one hole.
  std::optional<TouchedRange> Touched(const RamBlock& block, std::uint64_t from);

  const RamBlock* block_ = nullptr;
  TouchedRange last_{0, 0};
};

}  // namespace vmsave
