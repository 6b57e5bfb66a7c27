// Gives an image to a QEMU as the legacy stream that every version reads.
#pragma once

#include <sys/uio.h>

#include "reader/chunk_reader.h"
#include "reader/read_options.h"

namespace vmsave {

// Where a stream goes: a socket to QEMU. Not thread-safe.
class ByteSink {
 public:
  virtual ~ByteSink() = default;

  // Takes all of the bytes, in order. Throws Error where the other side does not.
  virtual void Write(std::span<const iovec> pieces) = 0;

  void Write(std::span<const std::byte> bytes);
};

// Sends the whole image. A sequential stream goes as it is, decompressed; fixed offsets are made into one on the way,
// several chunks read ahead, each checked before a page of it is sent.
void SendImage(const Image& image, ByteSink& sink, const ReadOptions& options, PageChecks checks, Progress& progress,
               const Interrupt& interrupt);

// RAM of a block that is sent from memory; an empty span for a block that the receiver has already.
using BlockMemory = std::span<const std::byte>;

// Sends a stream with the pages of the blocks that are in memory, and the device state.
void SendFromMemory(const StreamContents& contents, const std::vector<BlockMemory>& memory,
                    std::span<const std::byte> device_state, ByteSink& sink);

}  // namespace vmsave
