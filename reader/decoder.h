// Takes the compression off a stream, piece by piece.
#pragma once

#include <memory>
#include <span>

#include "format/save_header.h"
#include "reader/file_source.h"

namespace vmsave {

// One thread's.
class Decoder {
 public:
  virtual ~Decoder() = default;

  // The next bytes; valid until the next call. Empty at the end. Throws Error{kDamaged} for what is not of the format,
  // does not fit its checksums or ends too early; Error{kFailed} where the decompressor cannot be had.
  virtual std::span<const std::byte> Next() = 0;
};

// Of what gzip, bzip2, xz, lzop or zstd write, also several frames of it one after another. Keeps a reference to the
// source, whose errors pass through. The program lzop is started for its format. REQUIRES: 1 <= format <= 5.
std::unique_ptr<Decoder> MakeDecoder(PieceSource& compressed, BodyFormat format);

}  // namespace vmsave
