// Reads an image's RAM into memory: the guest's own, where it can be reached, or fresh memory.
#pragma once

#include <string>
#include <vector>

#include "io/memory_mapping.h"
#include "reader/chunk_reader.h"
#include "reader/read_options.h"

namespace vmsave {

// Memory that a RAM block's pages go to. What it held before does not matter: it ends as exactly the image's contents.
struct LoadTarget {
  std::span<std::byte> memory;  // as long as the block
  const FileDescriptor* backing =
      nullptr;  // the shared file that `memory` is a mapping of, if it is one: absent pages become its holes
  FileOffset backing_start;
};

// What LoadImage found besides the RAM: enough to tell a QEMU whose RAM is loaded already the rest.
struct LoadedRam {
  StreamContents contents;  // of every block, which pages are present
  std::vector<std::byte> device_state;
};

// Loads all blocks; targets[i] belongs to block i of `image.contents()`. Fixed offsets: over parallel channels, each
// page read straight to its place. A sequential stream: in order, several reads ahead. Pages are checked on their way
// (`checks`). Throws Error{kDamaged}, Error{kFailed}, Error{kInterrupted}; the targets are then partly loaded.
LoadedRam LoadImage(const Image& image, const std::vector<LoadTarget>& targets, const ReadOptions& options,
                    PageChecks checks, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
