// What a migration brings besides the pages.
#pragma once

#include <vector>

#include "format/stream_reader.h"

namespace vmsave {

struct ReceivedGuest {
  StreamContents contents;
  std::vector<std::byte> device_state;
};

}  // namespace vmsave
