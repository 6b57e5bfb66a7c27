// A compressed stream as a source of the bytes that it was made of.
#pragma once

#include <memory>
#include <string>

#include "io/interrupt.h"
#include "reader/decoder.h"

namespace vmsave {

// Its position is that in the decompressed stream. What it reads ahead is bounded by what the format wants for its
// window. All calls but position() and name() throw as Decoder::Next does, and Error{kInterrupted}: little that is
// compressed may become very much.
class DecompressedSource final : public PieceSource {
 public:
  // Keeps a reference to the interrupt. REQUIRES: 1 <= format <= 5.
  DecompressedSource(std::unique_ptr<PieceSource> compressed, BodyFormat format, const Interrupt& interrupt)
      : PieceSource(FileOffset{0}),
        compressed_(std::move(compressed)),
        name_(compressed_->name()),
        interrupt_(interrupt),
        decoder_(MakeDecoder(*compressed_, format)) {}

  std::string_view name() const override { return name_; }

 private:
  std::span<const std::byte> NextPiece() override {
    interrupt_.Check();
    return decoder_->Next();
  }

  std::unique_ptr<PieceSource> compressed_;
  std::string name_;
  const Interrupt& interrupt_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace vmsave
