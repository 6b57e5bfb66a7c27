// The last steps of both writers.
#pragma once

#include "format/page_bitmap.h"
#include "io/new_file.h"
#include "writer/image_writer.h"

namespace vmsave {

// How many requests each of that many channels keeps in flight, so that all together keep the device busy within
// bounded memory.
unsigned ChannelDepth(unsigned channels);

// Syncs what was written, then makes the image complete by its magic. That may take long where the page cache was used:
// it is a phase of its own, "syncing".
void CompleteImage(const NewFile& file, Progress& progress);

WriteTotals CountTotals(const std::vector<PageBitmap>& present, ByteCount file_length);

}  // namespace vmsave
