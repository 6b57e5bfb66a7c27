// Which save an image is of.
#pragma once

#include <cstdint>

#include "reader/image.h"

namespace vmsave {

// The same for copies of an image and for conversions between kinds with fixed offsets; another for every other save,
// as far as machine, RAM blocks, present pages or device state differ. A checksum, no protection against intent.
// REQUIRES: fixed offsets.
std::uint64_t ImageIdentity(const Image& image);

}  // namespace vmsave
