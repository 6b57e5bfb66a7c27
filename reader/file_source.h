// A stretch of a file as a source of bytes: through a small buffer for metadata, or read ahead in large aligned pieces
// for whole streams.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "format/stream_reader.h"
#include "io/aligned_buffer.h"
#include "io/interrupt.h"
#include "io/io_engine.h"
#include "io/progress.h"

namespace vmsave {

// A source whose bytes can also be had where they lie.
class PieceSource : public ByteSource {
 public:
  // The bytes at the position, as many as are there in one piece, without copying; they stay valid until the next call.
  // Empty at the end.
  virtual std::span<const std::byte> TakePiece() = 0;
};

// Reads what is asked for and little more. Keeps a reference to the file.
class FileSource : public PieceSource {
 public:
  FileSource(const FileDescriptor& file, FileOffset begin, FileOffset end);

  std::size_t ReadSome(std::span<std::byte> out) override;
  FileOffset position() const override { return position_; }
  void SkipTo(FileOffset position) override { position_ = position; }
  void StepBack() override { position_ = FileOffset{position_.value() - 1}; }
  std::string_view name() const override { return file_.name(); }
  std::span<const std::byte> TakePiece() override;

 private:
  std::span<const std::byte> Buffered();

  const FileDescriptor& file_;
  FileOffset position_;
  FileOffset end_;
  FileOffset buffer_start_;
  std::size_t buffered_ = 0;
  std::vector<std::byte> buffer_;
};

// Reads the whole stretch in order, several pieces of 1 MiB in flight ahead of the reader.
class ReadAheadSource : public PieceSource {
 public:
  // `pages` may be an O_DIRECT descriptor; `buffered` reads what is left of the last block. Advances `progress` as
  // bytes are taken.
  ReadAheadSource(const FileDescriptor& pages, const FileDescriptor& buffered, FileOffset begin, FileOffset end,
                  EngineKind engine, Progress& progress, const Interrupt& interrupt);

  std::size_t ReadSome(std::span<std::byte> out) override;
  FileOffset position() const override { return position_; }
  void StepBack() override;
  std::string_view name() const override { return buffered_.name(); }
  std::span<const std::byte> TakePiece() override;

 private:
  struct Piece {
    FileOffset start;
    std::size_t length = 0;
    AlignedBuffer buffer;
    bool complete = false;
  };
  void StartReads();
  void NextPiece();

  const FileDescriptor& pages_;
  const FileDescriptor& buffered_;
  FileOffset position_;
  FileOffset end_;
  FileOffset next_read_;
  std::span<const std::byte> ready_;  // what is left of the front piece
  Progress& progress_;
  const Interrupt& interrupt_;
  std::deque<std::unique_ptr<Piece>> in_order_;
  std::vector<std::unique_ptr<Piece>> spare_;
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the reads into the buffers
};

}  // namespace vmsave
