#include "reader/file_source.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace vmsave {
namespace {

constexpr std::size_t kMetadataBufferBytes = std::size_t{64} * 1024;
constexpr std::uint64_t kPieceBytes = 1 << 20;
constexpr unsigned kPiecesAhead = 8;

}  // namespace

void PieceSource::RequirePiece() {
  if (ready_.empty()) ready_ = NextPiece();
}

std::size_t PieceSource::ReadSome(std::span<std::byte> out) {
  RequirePiece();
  const std::size_t count = std::min(out.size(), ready_.size());
  std::copy_n(ready_.begin(), count, out.begin());
  ready_ = ready_.subspan(count);
  position_ += ByteCount{count};
  return count;
}

// The byte lies in the piece still: that is given up only when the next one is asked for.
void PieceSource::StepBack() {
  ready_ = {ready_.data() - 1, ready_.size() + 1};
  position_ = FileOffset{position_.value() - 1};
}

std::span<const std::byte> PieceSource::TakePiece() {
  RequirePiece();
  position_ += ByteCount{ready_.size()};
  return std::exchange(ready_, {});
}

void PieceSource::MoveTo(FileOffset position) {
  const std::uint64_t passed = (position - position_).value();
  ready_ = ready_.subspan(std::min<std::uint64_t>(passed, ready_.size()));
  position_ = position;
}

FileSource::FileSource(const FileDescriptor& file, FileOffset begin, FileOffset end)
    : PieceSource(begin), file_(file), end_(end), buffer_(kMetadataBufferBytes) {}

std::span<const std::byte> FileSource::NextPiece() {
  if (position() >= end_) return {};
  const std::uint64_t wanted = std::min<std::uint64_t>((end_ - position()).value(), buffer_.size());
  return std::span(buffer_).first(ReadUpTo(file_, std::span(buffer_).first(wanted), position()));
}

ReadAheadSource::ReadAheadSource(const FileDescriptor& pages, const FileDescriptor& buffered, FileOffset begin,
                                 FileOffset end, EngineKind engine, Progress& progress, const Interrupt& interrupt)
    : PieceSource(begin),
      pages_(pages),
      buffered_(buffered),
      end_(end),
      next_read_(RoundDown(begin.value(), kPageBytes)),
      piece_bytes_(std::min(kPieceBytes, RoundUp((end - next_read_).value(), kPageBytes))),
      progress_(progress),
      interrupt_(interrupt),
      engine_(MakeEngine(engine, kPiecesAhead)) {}

std::unique_ptr<ReadAheadSource::Piece> ReadAheadSource::SparePiece() {
  if (spare_.empty()) return std::make_unique<Piece>(piece_bytes_);
  std::unique_ptr<Piece> piece = std::move(spare_.back());
  spare_.pop_back();
  return piece;
}

// Whole blocks through `pages`, what is left of the last one through `buffered`.
void ReadAheadSource::StartReads() {
  while (in_order_.size() < kPiecesAhead && next_read_ < end_) {
    std::unique_ptr<Piece> piece = SparePiece();
    piece->start = next_read_;
    const std::uint64_t left = (end_ - next_read_).value();
    const std::uint64_t whole = RoundDown(std::min(left, piece_bytes_), kPageBytes);
    piece->length = whole > 0 ? whole : left;
    piece->complete = whole == 0;
    const std::span<std::byte> bytes = piece->buffer.bytes().first(piece->length);
    if (piece->complete) {
      ReadAt(buffered_, bytes, piece->start);
    } else {
      engine_->SubmitRead(pages_, bytes, piece->start, std::bit_cast<RequestId>(piece.get()));
    }
    next_read_ += ByteCount{piece->length};
    in_order_.push_back(std::move(piece));
  }
}

std::span<const std::byte> ReadAheadSource::NextPiece() {
  if (!in_order_.empty()) {
    spare_.push_back(std::move(in_order_.front()));
    in_order_.pop_front();
  }
  if (position() >= end_) return {};
  interrupt_.Check();
  StartReads();
  Piece& front = *in_order_.front();
  while (!front.complete) std::bit_cast<Piece*>(engine_->Wait())->complete = true;
  const std::span<std::byte> piece =
      front.buffer.bytes().first(front.length).subspan((position() - front.start).value());
  progress_.Advance(ByteCount{piece.size()});
  return piece;
}

}  // namespace vmsave
