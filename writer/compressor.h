// Compresses bytes that come one after another.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "format/save_header.h"

namespace vmsave {

// One thread's.
class Compressor {
 public:
  // Takes what comes out, in order, in pieces that are valid during the call. What it throws comes out of Write or
  // Finish.
  using Output = std::function<void(std::span<const std::byte>)>;

  virtual ~Compressor() = default;

  // Both throw Error{kFailed} where the compressor fails; nothing but the destructor may follow then.
  virtual void Write(std::span<const std::byte> bytes) = 0;

  // No byte follows: hands out the rest. REQUIRES: called once.
  virtual void Finish() = 0;
};

// What the programs gzip, bzip2, xz, lzop or zstd would write, with the level that libvirt asks of each. xz and zstd
// use up to `threads` threads; zstd's frame has its checksum, as all the others have theirs. lzop is the program
// itself. Throws Error{kFailed} where the compressor cannot be had. REQUIRES: 1 <= format <= 5.
std::unique_ptr<Compressor> MakeCompressor(BodyFormat format, unsigned threads, Compressor::Output output);

}  // namespace vmsave
