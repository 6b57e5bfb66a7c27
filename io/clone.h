// Files that share their storage.
#pragma once

#include "io/file_descriptor.h"

namespace vmsave {

// Makes `to` hold what `from` holds, at once and without copying, where the file system can share storage between files
// (FICLONE: btrfs, XFS, ...) and both lie on it. False where that cannot be done; `to` is then as it was. Throws
// Error{kFailed} for anything else. REQUIRES: `to` is open for writing, and empty.
bool CloneFile(const FileDescriptor& from, const FileDescriptor& to);

}  // namespace vmsave
