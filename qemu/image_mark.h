// A mark in a QEMU that tells from which image its guest is being restored, for whoever goes on with it.
#pragma once

#include "qemu/qmp_client.h"
#include "reader/image.h"

namespace vmsave {

// Puts the mark there. A QEMU that takes none goes without.
void MarkImage(QmpClient& qmp, const Image& image);

// Throws Error{kFailed} where there is a mark, and it is another image's.
void CheckImageMark(QmpClient& qmp, const Image& image);

// Throws as CheckImageMark where the guest's image has another identity (ImageIdentity).
void CheckIsOf(const Image& image, std::uint64_t identity);

void RemoveImageMark(QmpClient& qmp);

}  // namespace vmsave
