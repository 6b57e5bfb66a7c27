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

// A source that holds its bytes in memory, piece by piece: they can also be had where they lie.
class PieceSource : public ByteSource {
 public:
  std::size_t ReadSome(std::span<std::byte> out) final;
  FileOffset position() const final { return position_; }
  void StepBack() final;

  // The bytes at the position, as many as are there in one piece, without copying; they stay valid until the next call.
  // Empty at the end.
  std::span<const std::byte> TakePiece();

  PieceSource(const PieceSource&) = delete;
  PieceSource& operator=(const PieceSource&) = delete;

 protected:
  explicit PieceSource(FileOffset begin) : position_(begin) {}

  // Goes on at `position`, for a source that can make a piece of any place. REQUIRES: not before the present one.
  void MoveTo(FileOffset position);

  // For a source that is told where it ends.
  ByteCount LeftUpTo(FileOffset end) const { return end > position_ ? end - position_ : ByteCount{0}; }

 private:
  // The bytes from position() on, once those of the piece before are used up; valid until the next call. Empty at the
  // end.
  virtual std::span<const std::byte> NextPiece() = 0;

  void RequirePiece();

  FileOffset position_;
  std::span<const std::byte> ready_;  // what is left of the last piece
};

// Reads what is asked for and little more. Keeps a reference to the file.
class FileSource : public PieceSource {
 public:
  FileSource(const FileDescriptor& file, FileOffset begin, FileOffset end);

  void SkipTo(FileOffset position) override { MoveTo(position); }
  std::string_view name() const override { return file_.name(); }
  std::optional<ByteCount> Left() const override { return LeftUpTo(end_); }

 private:
  std::span<const std::byte> NextPiece() override;

  const FileDescriptor& file_;
  FileOffset end_;
  std::vector<std::byte> buffer_;
};

// Reads the whole stretch in order, up to 8 pieces of 1 MiB in flight ahead of the reader; a short stretch takes less
// memory.
class ReadAheadSource : public PieceSource {
 public:
  // `pages` may be an O_DIRECT descriptor; `buffered` reads what is left of the last block. Advances `progress` as
  // bytes are taken.
  ReadAheadSource(const FileDescriptor& pages, const FileDescriptor& buffered, FileOffset begin, FileOffset end,
                  EngineKind engine, Progress& progress, const Interrupt& interrupt);

  std::string_view name() const override { return buffered_.name(); }
  std::optional<ByteCount> Left() const override { return LeftUpTo(end_); }

 private:
  struct Piece {
    explicit Piece(std::size_t size) : buffer(size) {}

    FileOffset start;
    std::size_t length = 0;
    AlignedBuffer buffer;
    bool complete = false;
  };
  std::unique_ptr<Piece> SparePiece();
  void StartReads();
  std::span<const std::byte> NextPiece() override;

  const FileDescriptor& pages_;
  const FileDescriptor& buffered_;
  FileOffset end_;
  FileOffset next_read_;
  std::uint64_t piece_bytes_;
  Progress& progress_;
  const Interrupt& interrupt_;
  std::deque<std::unique_ptr<Piece>> in_order_;
  std::vector<std::unique_ptr<Piece>> spare_;
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the reads into the buffers
};

}  // namespace vmsave
