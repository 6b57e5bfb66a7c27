// What may be put in place of an image's description.
#pragma once

#include <string>

namespace vmsave {

// Throws Error{kUsage} naming `source` where `after` is no description (CheckDescription), is not libvirt's domain XML,
// or is of a guest with another name or UUID than `before`, as libvirt does.
void CheckDescriptionChange(const std::string& before, const std::string& after, const std::string& source);

}  // namespace vmsave
