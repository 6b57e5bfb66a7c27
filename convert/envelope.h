// Turns an image with fixed offsets into the other kind by what stands around its stream alone: version 3 and libvirt's
// sparse images have the same body, byte for byte (FORMAT.md, "Save header").
#pragma once

#include "reader/image.h"
#include "writer/fixed_offset_file.h"
#include "writer/write_options.h"

namespace vmsave {

// A file that is open for reading and writing, the same as `image` or a clone of it.
struct EnvelopeFile {
  const FileDescriptor& buffered;
  const FileDescriptor& pages;  // may be an O_DIRECT descriptor
};

// Changes the file in place. Checksums that are not there yet are made first, which reads every present page; no other
// change reads one. After every step the file is a whole image of one kind or the other, also where the host crashes:
// the checksums are appended and durable before the header, in a single write within one sector, begins to speak of
// them. Returns the file's length. Throws Error{kDamaged}, Error{kFailed}, Error{kInterrupted}; the last only while
// nothing was changed. REQUIRES: image.has_fixed_offsets(), and it has a header.
ByteCount ChangeEnvelope(const EnvelopeFile& file, const Image& image, FixedOffsetKind to, const WriteOptions& options,
                         Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
