#include "writer/sequential_writer.h"

#include <algorithm>
#include <cstring>

namespace vmsave {

SequentialWriter::SequentialWriter(const NewFile& file, EngineKind engine, unsigned depth)
    : file_(file), engine_(MakeEngine(engine, depth)) {
  for (unsigned i = 0; i < depth; ++i) {
    buffers_.emplace_back(kBufferBytes);
    free_.push_back(i);
  }
}

RequestId SequentialWriter::FreeBuffer() {
  if (free_.empty()) return engine_->Wait();
  const RequestId buffer = free_.back();
  free_.pop_back();
  return buffer;
}

std::span<std::byte> SequentialWriter::Room() {
  if (!filling_) filling_ = FreeBuffer();
  return buffers_[*filling_].bytes().subspan(filled_);
}

// A full buffer is submitted here and not by the next Room: it is written while the caller looks at it.
void SequentialWriter::Took(std::size_t count) {
  filled_ += count;
  if (filled_ < kBufferBytes) return;
  SubmitBuffer(kBufferBytes);
  filling_.reset();
  buffer_start_ += ByteCount{kBufferBytes};
  filled_ = 0;
}

void SequentialWriter::SubmitBuffer(std::size_t length) {
  engine_->SubmitWrite(file_.pages(), buffers_[*filling_].bytes().first(length), buffer_start_, *filling_);
}

void SequentialWriter::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<std::byte> room = Room();
    const std::size_t count = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), count);
    Took(count);
    bytes = bytes.subspan(count);
  }
}

void SequentialWriter::Finish() {
  const std::size_t whole = RoundDown(filled_, kPageBytes);
  if (whole > 0) SubmitBuffer(whole);
  engine_->Drain();
  if (filled_ == whole) return;
  WriteAt(file_.buffered(), buffers_[*filling_].bytes().subspan(whole, filled_ - whole),
          buffer_start_ + ByteCount{whole});
}

}  // namespace vmsave
