// Finds the present pages of a guest's RAM.
#pragma once

#include <vector>

#include "format/page_bitmap.h"
#include "format/work_plan.h"
#include "writer/ram_block.h"

namespace vmsave {

// The chunks of a guest's blocks.
WorkPlan PlanWork(const std::vector<RamBlock>& blocks);

// One bitmap for each block, empty.
std::vector<PageBitmap> EmptyBitmaps(const std::vector<RamBlock>& blocks);

// Sets the bits of the chunk's present pages. Pages that the backing file does not hold are zero and are not looked at,
// so that they stay untouched.
void ScanChunk(const RamBlock& block, const WorkChunk& chunk, PageBitmap& present);

}  // namespace vmsave
