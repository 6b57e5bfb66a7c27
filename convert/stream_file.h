// An image as one sequential stream: version 2, raw or compressed.
#pragma once

#include <string>

#include "reader/chunk_reader.h"
#include "reader/read_options.h"
#include "writer/image_writer.h"

namespace vmsave {

// What stands in front of the stream.
struct StreamEnvelope {
  std::string description;
  bool was_running = true;
  BodyFormat format = BodyFormat::kRaw;  // not kSparse
};

// Writes the whole image and makes it complete and durable, but for its name. A stream that is in `image` already goes
// into it as it is, page by page where fixed offsets are; compressed by `options.channels` threads where the format's
// compressor has any. Returns the file's length. Throws Error{kDamaged}, Error{kFailed}, Error{kInterrupted}.
ByteCount WriteStreamFile(const Image& image, NewFile& file, const StreamEnvelope& envelope, const ReadOptions& options,
                          PageChecks checks, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
