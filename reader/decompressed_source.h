// A compressed stream as a source of the bytes that it was made of.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "format/save_header.h"
#include "reader/file_source.h"

struct archive;

namespace vmsave {

// As gzip, bzip2, xz, lzop or zstd write it; decompressed by libarchive, which starts the program lzop for that one.
// What it reads ahead is bounded by what the format wants for its window. All calls throw Error{kDamaged} for what is
// no such stream, or ends before it does, and Error{kFailed} where the decompressor cannot be had.
class DecompressedSource final : public PieceSource {
 public:
  // REQUIRES: 1 <= format <= 5.
  DecompressedSource(std::unique_ptr<PieceSource> compressed, BodyFormat format);
  ~DecompressedSource() override;
  DecompressedSource(const DecompressedSource&) = delete;
  DecompressedSource& operator=(const DecompressedSource&) = delete;

  std::size_t ReadSome(std::span<std::byte> out) override;
  FileOffset position() const override { return position_; }  // in the decompressed stream
  void StepBack() override;
  std::string_view name() const override { return name_; }
  std::span<const std::byte> TakePiece() override;

 private:
  struct Closer {
    void operator()(::archive* reader) const;
  };

  void Open();
  void NextPiece();
  std::span<const std::byte> TakeCompressed() noexcept;
  [[noreturn]] void Fail();

  std::unique_ptr<PieceSource> compressed_;
  BodyFormat format_;
  std::string name_;
  std::exception_ptr failure_;  // of reading `compressed_`, on its way through libarchive
  FileOffset position_;
  std::span<const std::byte> ready_;  // what is left of the last piece
  std::unique_ptr<::archive, Closer> archive_;
};

}  // namespace vmsave
