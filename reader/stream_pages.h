// Walks a sequential stream from end to end.
#pragma once

#include <vector>

#include "reader/read_options.h"

namespace vmsave {

// Which pages of each block the stream leaves present. Checks the stream's structure on the way. Throws
// Error{kDamaged}, Error{kInterrupted}. REQUIRES: the image is a sequential stream, not compressed.
std::vector<PageBitmap> FindStreamPages(const Image& image, const ReadOptions& options, Progress& progress,
                                        const Interrupt& interrupt);

}  // namespace vmsave
