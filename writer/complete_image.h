// The last step of every writer of an image.
#pragma once

#include "io/new_file.h"
#include "io/progress.h"

namespace vmsave {

// Syncs what was written, then makes the image complete by its magic. That may take long where the page cache was used:
// it is a phase of its own, "syncing".
void CompleteImage(const NewFile& file, Progress& progress);

}  // namespace vmsave
