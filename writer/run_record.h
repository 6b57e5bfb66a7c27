// Whether the guest ran, where it becomes known only after the image was written.
#pragma once

#include "io/new_file.h"

namespace vmsave {

// Corrects what the header of a complete image says of it. Durable once the file is published. Throws Error{kFailed}.
void RecordWasRunning(const NewFile& file, bool was_running);

}  // namespace vmsave
