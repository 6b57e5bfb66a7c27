#include "writer/stretch_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace vmsave {

std::span<std::byte> StretchWriter::Stretch::ToEndOfBuffer(std::size_t offset) const {
  const std::size_t at = begin_.value() % kBufferBytes + offset;
  return buffers_[at / kBufferBytes]->memory.bytes().subspan(at % kBufferBytes);
}

void StretchWriter::Stretch::Put(std::size_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<std::byte> room = ToEndOfBuffer(offset);
    const std::size_t count = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), count);
    bytes = bytes.subspan(count);
    offset += count;
  }
}

void StretchWriter::Stretch::AppendPieces(std::size_t offset, std::size_t length, std::vector<iovec>& pieces) const {
  while (length > 0) {
    const std::span<std::byte> room = ToEndOfBuffer(offset);
    const std::size_t count = std::min(room.size(), length);
    pieces.push_back({room.data(), count});
    offset += count;
    length -= count;
  }
}

StretchWriter::Stretch StretchWriter::Reserve(std::size_t length) {
  const std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
  Stretch stretch;
  stretch.begin_ = next_;
  stretch.size_ = length;
  const FileOffset end = next_ + ByteCount{length};
  auto buffer = stretch.buffers_.begin();
  for (std::uint64_t start = RoundDown(next_.value(), kBufferBytes); start < end.value(); start += kBufferBytes) {
    *buffer++ = &BufferAt(start);
  }
  next_ = end;
  return stretch;
}

// REQUIRES: the lock is held.
StretchWriter::Buffer& StretchWriter::BufferAt(std::uint64_t start) {
  if (const auto known = in_use_.find(start); known != in_use_.end()) return *known->second;
  if (free_.empty()) free_.push_back(std::make_unique<Buffer>());
  Buffer& buffer = *in_use_.emplace(start, std::move(free_.back())).first->second;
  free_.pop_back();
  buffer.start = FileOffset{start};
  buffer.committed.store(0, std::memory_order_relaxed);
  return buffer;
}

void StretchWriter::Commit(const Stretch& stretch, IoEngine& engine) try {
  CountCommitted(stretch, engine);
} catch (const Error& error) {
  KeepFailure(error);
  throw;
}

// A buffer that this thread does not complete may be another one's, or be gone, as soon as its bytes are counted.
void StretchWriter::CountCommitted(const Stretch& stretch, IoEngine& engine) {
  std::size_t left = stretch.size();
  std::size_t start = stretch.begin().value() % kBufferBytes;
  for (auto buffer = stretch.buffers_.begin(); left > 0; ++buffer, start = 0) {
    const std::size_t length = std::min(left, kBufferBytes - start);
    if ((*buffer)->committed.fetch_add(length, std::memory_order_acq_rel) + length == kBufferBytes) {
      Submit(**buffer, engine);
    }
    left -= length;
  }
}

void StretchWriter::Submit(Buffer& buffer, IoEngine& engine) {
  if (engine.full()) AwaitOne(engine);
  engine.SubmitWrite(file_.pages(), buffer.memory.bytes(), buffer.start, std::bit_cast<RequestId>(&buffer));
}

void StretchWriter::AwaitOne(IoEngine& engine) {
  const Buffer& written = *std::bit_cast<Buffer*>(engine.Wait());
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(in_use_.extract(written.start.value()).mapped()));
}

void StretchWriter::Settle(IoEngine& engine) try {
  while (engine.in_flight() > 0) AwaitOne(engine);
} catch (const Error& error) {
  KeepFailure(error);
  throw;
}

void StretchWriter::KeepFailure(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = error;
}

void StretchWriter::Append(std::span<const std::byte> bytes, IoEngine& engine) {
  while (!bytes.empty()) {
    Stretch stretch = Reserve(std::min(bytes.size(), kMaxStretchBytes));
    stretch.Put(0, bytes.first(stretch.size()));
    Commit(stretch, engine);
    bytes = bytes.subspan(stretch.size());
  }
}

ByteCount StretchWriter::Finish(IoEngine& engine) {
  Settle(engine);
  const std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
  const std::size_t rest = next_.value() % kBufferBytes;
  if (!HoldsNoMoreThan(rest)) {
    throw Error(ErrorKind::kFailed, "cannot write " + file_.path(), "a part of it never came");
  }
  if (rest > 0) WriteRest(*in_use_.begin()->second, rest, engine);
  return next_ - FileOffset{0};
}

// Whether of all that was reserved only the last `rest` bytes, all there, are not written yet.
bool StretchWriter::HoldsNoMoreThan(std::size_t rest) const {
  if (rest == 0) return in_use_.empty();
  return in_use_.size() == 1 && in_use_.begin()->second->committed == rest;
}

void StretchWriter::WriteRest(const Buffer& last, std::size_t rest, IoEngine& engine) {
  const std::size_t whole = RoundDown(rest, kPageBytes);
  if (whole > 0) engine.SubmitWrite(file_.pages(), last.memory.bytes().first(whole), last.start);
  engine.Drain();
  WriteAt(file_.buffered(), last.memory.bytes().subspan(whole, rest - whole), last.start + ByteCount{whole});
}

std::size_t StretchWriter::buffer_count() const {
  const std::lock_guard lock(mutex_);
  return in_use_.size() + free_.size();
}

}  // namespace vmsave
