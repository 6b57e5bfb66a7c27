// The stream of an image that has one: as it lies in the file, or decompressed.
#pragma once

#include <memory>

#include "reader/file_source.h"
#include "reader/read_options.h"

namespace vmsave {

// Reads ahead, past the page cache where that is wished. Begins a phase called `phase` (a string literal) of the
// length of the stream in the file, and advances it. Keeps references to image, progress and interrupt. Throws as
// Image::OpenForPages does. REQUIRES: the image has no fixed offsets.
std::unique_ptr<PieceSource> OpenStream(const Image& image, const ReadOptions& options, const char* phase,
                                        Progress& progress, const Interrupt& interrupt);

// A stream is read twice: when its image is opened, and now. Throws Error{kDamaged} where it has other RAM blocks now:
// what was made for those of the image would not fit.
void RefuseChangedBlocks(const Image& image, const StreamContents& now);

}  // namespace vmsave
