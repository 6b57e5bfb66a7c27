// Checks an image against its checksums.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "reader/read_options.h"

namespace vmsave {

// Header, description, block list, bitmaps, device state: everything but the pages; quick. Of images without checksums,
// that the stream has an end. Returns the first damage in words, which name its place in the file; nothing where there
// is none.
std::optional<std::string> FindMetadataDamage(const Image& image);

// The same. Throws Error{kDamaged} naming the damage.
void VerifyMetadata(const Image& image);

struct VerifyReport {
  // Each naming block, pages and place in the file, neighbouring pages together; empty: nothing wrong.
  std::vector<std::string> damage;
  bool has_checksums = false;  // false: only the structure could be looked at
  ByteCount checked;           // of guest RAM
};

// Everything, pages too, over parallel channels. Goes on behind pages that are damaged or cannot be read. Throws
// Error{kFailed}, Error{kInterrupted}.
VerifyReport Verify(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt);

// The same. Throws Error{kDamaged} naming the first damage.
void VerifyAll(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
