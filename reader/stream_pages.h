// Walks a sequential stream from end to end.
#pragma once

#include <vector>

#include "reader/read_options.h"

namespace vmsave {

struct StreamWalk {
  std::vector<PageBitmap> present;  // which pages of each block the stream leaves present
  std::vector<std::byte> device_state;
};

// Checks the stream's structure on the way. Throws Error{kDamaged}, Error{kInterrupted}. REQUIRES: the image has no
// fixed offsets.
StreamWalk WalkStream(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
