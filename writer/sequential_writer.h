// Writes bytes that come one after another: the mirror of a source that reads ahead.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/aligned_buffer.h"
#include "io/io_engine.h"
#include "io/new_file.h"

namespace vmsave {

// From the start of a new file on, in large aligned pieces, while the next bytes are taken. Whole blocks go to the
// descriptor for pages; the rest, shorter than a block, to the buffered one. One thread's. All calls but position()
// throw Error{kFailed} for what the file refuses, which may be bytes of an earlier call; nothing but the destructor may
// follow then.
class SequentialWriter {
 public:
  static constexpr std::size_t kBufferBytes = 1 << 20;

  // Keeps a reference to the file. Up to `depth` writes are in flight, each from a buffer of kBufferBytes.
  SequentialWriter(const NewFile& file, EngineKind engine, unsigned depth);

  // Where the next bytes go: at least one byte, and up to kBufferBytes. May wait for the device. The memory can be read
  // until the next call of Room, Append or Finish, also after Took.
  std::span<std::byte> Room();

  // The first `count` bytes of Room() are filled in; the file has them next. REQUIRES: count <= Room().size().
  void Took(std::size_t count);

  // The same, copying.
  void Append(std::span<const std::byte> bytes);

  // Of the next byte: how many were given so far.
  FileOffset position() const { return buffer_start_ + ByteCount{filled_}; }

  // Waits until all bytes are written, though not durable (NewFile::Sync). REQUIRES: no call follows.
  void Finish();

 private:
  RequestId FreeBuffer();
  void SubmitBuffer(std::size_t length);

  const NewFile& file_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<RequestId> free_;
  std::optional<RequestId> filling_;
  FileOffset buffer_start_;  // where the buffer that is being filled goes
  std::size_t filled_ = 0;
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the writes that still use the buffers
};

}  // namespace vmsave
