// What a file demands of direct I/O, asked from the file and not assumed.
#pragma once

#include <cstddef>
#include <string>

#include "io/file_descriptor.h"

namespace vmsave {

enum class AlignmentSource { kTold, kAssumed };

// All powers of two, in bytes.
struct DirectAlignment {
  std::size_t memory;       // of a buffer's address
  std::size_t file_offset;  // of offset and length
  AlignmentSource source = AlignmentSource::kTold;
};

// Asks statx(2) STATX_DIOALIGN (Linux 6.1); where the kernel or the file system does not tell, assumes 4096 and makes
// sure with one 4096-byte read or, in a file that is empty or open for writing only, trusts that open(2) took O_DIRECT.
// `file` must have been opened with O_DIRECT. Throws Error{kFailed} where the file cannot do direct I/O, or demands
// more than `kPageBytes` (both numbers in the message).
DirectAlignment AskDirectAlignment(const FileDescriptor& file);

// Opens `path` once more with O_DIRECT (flags: the access mode). Throws Error{kFailed} saying that the file system has
// no direct I/O and to leave --bypass-cache out, where that is so.
FileDescriptor OpenDirect(const std::string& path, int flags);

// As OpenDirect, with `name` looked up in `directory`; messages call the file `path`.
FileDescriptor OpenDirectAt(const FileDescriptor& directory, const std::string& name, int flags,
                            const std::string& path);

}  // namespace vmsave
