// A mark in a QEMU that tells from which image its guest is being restored, for whoever goes on with it.
#pragma once

#include "qemu/qmp_client.h"
#include "reader/image.h"

namespace vmsave {

// Puts the mark there. A QEMU that takes none goes without.
void MarkImage(QmpClient& qmp, const Image& image);

// Throws Error{kFailed} where there is a mark, and it is another image's.
void CheckImageMark(QmpClient& qmp, const Image& image);

void RemoveImageMark(QmpClient& qmp);

}  // namespace vmsave
