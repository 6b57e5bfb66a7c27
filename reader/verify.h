// Checks an image against its checksums.
#pragma once

#include <string>
#include <vector>

#include "reader/read_options.h"

namespace vmsave {

// Header, description, block list, bitmaps, device state: everything but the pages; quick. Of images without checksums,
// that the stream has an end. Throws Error{kDamaged} naming the first damage.
void VerifyMetadata(const Image& image);

struct VerifyReport {
  std::vector<std::string> damage;  // each naming block, pages and place in the file; empty: nothing wrong
  bool has_checksums = false;       // false: only the structure could be looked at
  ByteCount checked;                // of guest RAM
};

// Everything, pages too, over parallel channels. Goes on behind damaged pages. Throws Error{kFailed},
// Error{kInterrupted}.
VerifyReport Verify(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
