// Writes a stopped guest into a new file as an image, over parallel channels.
#pragma once

#include "io/channels.h"
#include "io/new_file.h"
#include "writer/ram_block.h"
#include "writer/write_options.h"

namespace vmsave {

// Both write the whole image and make it complete and durable, but for its name: NewFile::Publish comes next. The guest
// is released, in the calling thread, as soon as the writes of its pages have completed (write(2) has copied them into
// the page cache, or the disk has taken them with O_DIRECT): it need not stand still while the rest is written and all
// of it synced. They throw Error{kFailed} for what the file refuses, Error{kInterrupted}; the file is then a partial
// image, which NewFile removes.

// Version 3: every page at its fixed offset, straight from the guest's memory.
WriteTotals WriteVersion3(NewFile& file, const GuestImage& guest, const WriteOptions& options, Progress& progress,
                          const Interrupt& interrupt);

// Version 2: QEMU's sequential stream. Once the zero pages are known, so is the place of every record; each channel
// then makes and writes blocks of the file of its own.
WriteTotals WriteVersion2(NewFile& file, const GuestImage& guest, const WriteOptions& options, Progress& progress,
                          const Interrupt& interrupt);

}  // namespace vmsave
