// How an image is read: for every reader alike.
#pragma once

#include <algorithm>

#include "io/channels.h"
#include "io/io_engine.h"
#include "reader/image.h"

namespace vmsave {

struct ReadOptions {
  unsigned channels = 1;  // 1..kMaxChannels
  EngineKind engine = EngineKind::kSync;
  CacheUse cache = CacheUse::kPageCache;
};

// How many requests each of that many channels keeps in flight.
inline unsigned ReaderDepth(unsigned channels) {
  return std::clamp(64 / channels, 4U, 16U);
}

}  // namespace vmsave
