// All of an image's RAM into a store of pages.
#pragma once

#include <functional>
#include <memory>

#include "reader/chunk_reader.h"
#include "reader/read_options.h"
#include "writer/page_store.h"

namespace vmsave {

// Makes the store once it is known what the image has: machine and RAM blocks.
using StoreMaker = std::function<std::unique_ptr<PageStore>(const StreamContents& contents)>;

// Which RAM blocks are taken, by their number in the block list.
using BlockFilter = std::function<bool(std::size_t block)>;

// Gives every page of the wanted blocks to the store and completes it. Fixed offsets: over parallel channels, each of
// which reads chunks ahead, checks them and writes them. A sequential stream: in order, decompressed where it has to
// be, and written over parallel channels. Memory is bounded. Throws Error{kDamaged}, Error{kFailed},
// Error{kInterrupted}.
WriteTotals TransferPages(
    const Image& image, const StoreMaker& make_store, const ReadOptions& options, PageChecks checks, Progress& progress,
    const Interrupt& interrupt, const BlockFilter& wanted = [](std::size_t) { return true; });

}  // namespace vmsave
