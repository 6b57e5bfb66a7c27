// What the programs do with an image, without their output.
#pragma once

#include <string>

namespace vmsave {

// One of it, which `choice` selects. Whatever the image is, it ends without an error or with an Error; where it ends
// without one, an image that was made is read again, and must be whole.
void UseImage(const std::string& path, unsigned choice);

}  // namespace vmsave
