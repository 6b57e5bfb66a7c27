// How pages are written, and what came of it: for every writer alike.
#pragma once

#include <algorithm>
#include <vector>

#include "format/page_bitmap.h"
#include "io/channels.h"
#include "io/io_engine.h"

namespace vmsave {

struct WriteOptions {
  unsigned channels = 1;  // 1..kMaxChannels
  EngineKind engine = EngineKind::kSync;
  bool checksums = true;  // version 3 only
};

// How many requests each of that many channels keeps in flight, so that all together keep the device busy within
// bounded memory.
inline unsigned ChannelDepth(unsigned channels) {
  return std::clamp(32 / channels, 2U, 16U);
}

struct WriteTotals {
  ByteCount ram;
  ByteCount present;  // written
  ByteCount zero;
  ByteCount file_length;
};

// Of blocks with those pages.
WriteTotals CountTotals(const std::vector<PageBitmap>& present, ByteCount file_length);

}  // namespace vmsave
