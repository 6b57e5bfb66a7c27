// The integrity table of a stream with fixed offsets that is in its file already, whoever wrote it.
#pragma once

#include <vector>

#include "format/integrity_table.h"
#include "format/stream_reader.h"
#include "writer/write_options.h"

namespace vmsave {

struct WrittenStream {
  FileOffset start;
  FileOffset end;                          // behind the device state
  const std::vector<StreamBlock>& blocks;  // with their bitmaps
};

// Reads all of it once, its pages over options.channels channels: `pages` may be an O_DIRECT descriptor of the file
// that `buffered` reads through the page cache. Throws Error{kFailed}, Error{kInterrupted}, Error{kDamaged}.
IntegrityTable HashWrittenStream(const FileDescriptor& buffered, const FileDescriptor& pages,
                                 const WrittenStream& stream, const WriteOptions& options, Progress& progress,
                                 const Interrupt& interrupt);

}  // namespace vmsave
