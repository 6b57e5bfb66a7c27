// A description that is given as a file.
#pragma once

#include <string>

#include "io/file_descriptor.h"
#include "io/interrupt.h"

namespace vmsave {

// What is in the file, or comes through it; what is longer than any description can be is cut off. Throws
// Error{kFailed} where it cannot be read, Error{kInterrupted}.
std::string ReadText(const FileDescriptor& file, const Interrupt& interrupt);

// The text of the file, checked to be well-formed XML that an image can hold. Throws Error{kFailed} where it cannot be
// read, Error{kUsage} for what is wrong with the text.
std::string ReadDescriptionFile(const std::string& path);

}  // namespace vmsave
