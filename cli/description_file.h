// A description that is given as a file.
#pragma once

#include <string>

namespace vmsave {

// The text of the file, checked to be well-formed XML that an image can hold. Throws Error{kFailed} where it cannot be
// read, Error{kUsage} for what is wrong with the text.
std::string ReadDescriptionFile(const std::string& path);

}  // namespace vmsave
