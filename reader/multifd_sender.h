// Gives an image to a QEMU that listens with multifd: pages over parallel channels, the rest as a stream beside them.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "reader/multifd_link.h"
#include "reader/read_options.h"

namespace vmsave {

// Where a QEMU takes an image. The channels' hellos have been sent.
struct MultifdTarget {
  ByteSink& main;
  std::vector<ByteSink*> channels;  // used by one thread each, all of them at once
  SyncAt sync_at = SyncAt::kFlush;

  // RAM blocks that hold nothing but zeros. Absent pages of all others are sent as zero pages, one by one.
  std::set<std::string> zero_blocks{};
};

// Sends the whole image; the receiver's RAM ends as exactly the image's. Fixed offsets: every channel reads chunks
// ahead, checks them, and sends their present pages from where they were read. A sequential stream: one thread reads
// it and deals its pages to the channels; a page that comes again waits until the one before is in its place.
// `options.channels` is not looked at: there are as many as the receiver has. Returns what was sent, with the pages of
// each block that are present. Throws Error{kDamaged}, Error{kFailed}, Error{kInterrupted}; the receiver has then not
// been sent the device state.
StreamContents SendImageOverMultifd(const Image& image, const MultifdTarget& receiver, const ReadOptions& options,
                                    PageChecks checks, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
