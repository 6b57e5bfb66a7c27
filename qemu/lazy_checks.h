// Whether a guest can run before its RAM is loaded, told before QEMU is given anything.
#pragma once

#include <string>
#include <vector>

#include "format/postcopy.h"
#include "qemu/qmp_client.h"
#include "reader/image.h"

namespace vmsave {

inline constexpr const char* kPostcopyCapability = "postcopy-ram";

// Empty, or why no QEMU can take this image that way. Throws nothing.
std::string WhyNeverLazy(const Image& image);

// Throws Error{kFailed} with the command to type where WhyNeverLazy tells a reason.
void RefuseNeverLazy(const Image& image);

// Empty, or why this QEMU cannot: its version, its memory backends, what the host lets it do. What is set for asking
// is put back. REQUIRES: it waits for a guest. Throws what QmpClient::Execute throws.
std::string WhyNotLazy(QmpClient& qmp);

// The blocks of the image, with the size of the pages that QEMU has for each.
std::vector<PostcopyBlock> QueryPostcopyBlocks(QmpClient& qmp, const Image& image);

}  // namespace vmsave
