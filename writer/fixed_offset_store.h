// The store of images with fixed offsets, with engines of the caller's making. Those of page_store.h are the ones to
// use.
#pragma once

#include <functional>
#include <memory>

#include "writer/fixed_offset_file.h"
#include "writer/page_store.h"

namespace vmsave {

// Makes the engine of one channel; its depth is also how many buffers of 1 MiB the channel has. Called by OpenChannel,
// from any thread.
using EngineMaker = std::function<std::unique_ptr<IoEngine>()>;

// A seam for tests of what must hold in whatever order and however late an engine does its writes.
std::unique_ptr<PageStore> MakeFixedOffsetStore(NewFile& file, ArrivingGuest guest, FixedOffsetKind kind,
                                                const WriteOptions& options, EngineMaker make_engine);

}  // namespace vmsave
