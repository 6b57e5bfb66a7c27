// The bytes of a save image before its stream, as they count: an edit that was interrupted is taken into account
// (FORMAT.md, "Edit record").
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "format/edit_record.h"
#include "format/save_header.h"
#include "io/file_descriptor.h"

namespace vmsave {

// What an edit has left in the file.
enum class EditTrace {
  kNone,
  kIncomplete,  // it was interrupted before its record was whole: the image is as it was
  kRecord,      // the record is whole: its bytes count, whatever stands in the image
};

struct ImageHead {
  SaveHeader header;
  std::vector<std::byte> before_stream;  // header, description, cookie, padding: [0, S)
  ByteCount image_length;                // without what stands behind the image
  EditTrace edit = EditTrace::kNone;
};

// Opens a regular file; `flags` as for open(2). Throws Error{kFailed}.
FileDescriptor OpenImageFile(const std::string& path, int flags);

// Nothing where the file is no save image: too short, or without its magic. Throws Error{kDamaged} for one that is
// partial or truncated before its stream, or of an unknown version or feature; with version 3, also one truncated
// behind. Checksums are not looked at. An edit may be under way meanwhile.
std::optional<ImageHead> ReadImageHead(const FileDescriptor& file);

}  // namespace vmsave
