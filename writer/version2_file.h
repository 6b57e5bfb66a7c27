// What stands in front of the stream in a version 2 image (FORMAT.md, "Save header").
#pragma once

#include <string_view>
#include <vector>

#include "format/save_header.h"

namespace vmsave {

// The header, of an image that is not complete yet, and the description with its padding: all bytes before the stream,
// which is as `format` says. REQUIRES: no more than half of kMaxDescriptionBytes; not kSparse.
std::vector<std::byte> EncodeBeforeStream(std::string_view description, bool was_running,
                                          BodyFormat format = BodyFormat::kRaw);

}  // namespace vmsave
