#include "reader/file_source.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace vmsave {
namespace {

constexpr std::size_t kMetadataBufferBytes = std::size_t{64} * 1024;
constexpr std::uint64_t kPieceBytes = 1 << 20;
constexpr unsigned kPiecesAhead = 8;

}  // namespace

FileSource::FileSource(const FileDescriptor& file, FileOffset begin, FileOffset end)
    : file_(file), position_(begin), end_(end), buffer_start_(begin), buffer_(kMetadataBufferBytes) {}

// What the buffer has from the position on; filled anew where that is nothing.
std::span<const std::byte> FileSource::Buffered() {
  if (position_ >= end_) return {};
  if (position_ < buffer_start_ || position_ >= buffer_start_ + ByteCount{buffered_}) {
    const std::uint64_t wanted = std::min<std::uint64_t>((end_ - position_).value(), buffer_.size());
    buffered_ = ReadUpTo(file_, std::span(buffer_).first(wanted), position_);
    buffer_start_ = position_;
  }
  return std::span(buffer_).first(buffered_).subspan((position_ - buffer_start_).value());
}

std::size_t FileSource::ReadSome(std::span<std::byte> out) {
  const std::span<const std::byte> buffered = Buffered();
  const std::size_t count = std::min(out.size(), buffered.size());
  std::copy_n(buffered.begin(), count, out.begin());
  position_ += ByteCount{count};
  return count;
}

std::span<const std::byte> FileSource::TakePiece() {
  const std::span<const std::byte> piece = Buffered();
  position_ += ByteCount{piece.size()};
  return piece;
}

ReadAheadSource::ReadAheadSource(const FileDescriptor& pages, const FileDescriptor& buffered, FileOffset begin,
                                 FileOffset end, EngineKind engine, Progress& progress, const Interrupt& interrupt)
    : pages_(pages),
      buffered_(buffered),
      position_(begin),
      end_(end),
      next_read_(RoundDown(begin.value(), kPageBytes)),
      progress_(progress),
      interrupt_(interrupt),
      engine_(MakeEngine(engine, kPiecesAhead)) {
  for (unsigned i = 0; i < kPiecesAhead; ++i) {
    spare_.push_back(std::make_unique<Piece>());
    spare_.back()->buffer = AlignedBuffer(kPieceBytes);
  }
}

// Whole blocks through `pages`, what is left of the last one through `buffered`.
void ReadAheadSource::StartReads() {
  while (!spare_.empty() && next_read_ < end_) {
    std::unique_ptr<Piece> piece = std::move(spare_.back());
    spare_.pop_back();
    piece->start = next_read_;
    const std::uint64_t left = (end_ - next_read_).value();
    const std::uint64_t whole = RoundDown(std::min(left, kPieceBytes), kPageBytes);
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

// Makes the next piece ready; nothing is ready at the end. REQUIRES: the one before is used up.
void ReadAheadSource::NextPiece() {
  if (!in_order_.empty()) {
    spare_.push_back(std::move(in_order_.front()));
    in_order_.pop_front();
  }
  if (position_ >= end_) return;
  interrupt_.Check();
  StartReads();
  Piece& front = *in_order_.front();
  while (!front.complete) std::bit_cast<Piece*>(engine_->Wait())->complete = true;
  ready_ = front.buffer.bytes().first(front.length).subspan((position_ - front.start).value());
  progress_.Advance(ByteCount{ready_.size()});
}

std::size_t ReadAheadSource::ReadSome(std::span<std::byte> out) {
  if (ready_.empty()) NextPiece();
  const std::size_t count = std::min(out.size(), ready_.size());
  if (count == 0) return 0;
  std::memcpy(out.data(), ready_.data(), count);
  ready_ = ready_.subspan(count);
  position_ += ByteCount{count};
  return count;
}

// The byte lies in the front piece still: that is given up only when the next one is asked for.
void ReadAheadSource::StepBack() {
  ready_ = {ready_.data() - 1, ready_.size() + 1};
  position_ = FileOffset{position_.value() - 1};
}

std::span<const std::byte> ReadAheadSource::TakePiece() {
  if (ready_.empty()) NextPiece();
  position_ += ByteCount{ready_.size()};
  return std::exchange(ready_, {});
}

}  // namespace vmsave
