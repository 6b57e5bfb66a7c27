// What may be put in place of an image's description.
#pragma once

#include <string>

#include "io/interrupt.h"

namespace vmsave {

// All of a file, or of standard input for "-"; no more than a description can have. Throws Error{kFailed},
// Error{kInterrupted}.
std::string ReadText(const std::string& path, const Interrupt& interrupt);

// Throws Error{kUsage} naming `source` where `after` is no description (CheckDescription), is not libvirt's domain XML,
// or is of a guest with another name or UUID than `before`, as libvirt does.
void CheckDescriptionChange(const std::string& before, const std::string& after, const std::string& source);

}  // namespace vmsave
