// Finds the present pages of a guest's RAM.
#pragma once

#include <vector>

#include "format/page_bitmap.h"
#include "format/work_plan.h"
#include "io/resident_pages.h"
#include "writer/ram_block.h"

namespace vmsave {

// One bitmap for each block, empty.
std::vector<PageBitmap> EmptyBitmaps(const std::vector<RamBlock>& blocks);

// Sets the bits of a chunk's present pages. Pages that the backing file does not hold are zero and are not looked at,
// so that they stay untouched. Made for chunk after chunk: it remembers what it was told of the file behind the last
// one. One thread's. The guest must stay stopped as long as it is used.
class ChunkScanner {
 public:
  void Scan(const RamBlock& block, const WorkChunk& chunk, PageBitmap& present);

 private:
  // Pages that were touched all of them, or none.
  struct Stretch {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    bool touched = false;
  };

  void TurnTo(const RamBlock& block);
  Stretch StretchAt(std::uint64_t page, const WorkChunk& chunk);
  Stretch AskFile(std::uint64_t page) const;

  const RamBlock* block_ = nullptr;
  bool can_tell_resident_ = false;
  Stretch known_;  // by the file
  ResidentPages resident_;
  std::uint64_t resident_begin_ = 0;  // the page that it begins with
  std::uint64_t resident_end_ = 0;
};

}  // namespace vmsave
