// Writes a file whose parts are filled in by several threads at once, each at its own pace.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "io/aligned_buffer.h"
#include "io/io_engine.h"
#include "io/new_file.h"

namespace vmsave {

// Stretches follow each other in the file without gaps, in the order in which they were reserved. Each lies in aligned
// buffers that it shares with its neighbours; whoever commits the last byte of a buffer starts its write. All calls but
// Finish may come from any thread, each with an engine of its own.
//
// Nobody ever waits for somebody else's stretch or write: there is always one more buffer. That takes no more than
// kMaxBuffersOfStretch for each stretch that is not committed yet, the depth of each engine, and one.
class StretchWriter {
 public:
  static constexpr std::size_t kBufferBytes = 1 << 20;
  static constexpr std::size_t kMaxStretchBytes = 2 * kBufferBytes;
  static constexpr std::size_t kMaxBuffersOfStretch = kMaxStretchBytes / kBufferBytes + 1;

 private:
  struct Buffer {
    AlignedBuffer memory{kBufferBytes};
    FileOffset start;
    std::atomic<std::size_t> committed = 0;
  };

 public:
  // The bytes of the file from begin() on, to be filled in by one thread. Valid until it is committed.
  class Stretch {
   public:
    FileOffset begin() const { return begin_; }
    std::size_t size() const { return size_; }

    // REQUIRES of both: offset + length <= size().
    void Put(std::size_t offset, std::span<const std::byte> bytes);
    // Where these bytes of the stretch lie: one piece, or more where they straddle buffers.
    void AppendPieces(std::size_t offset, std::size_t length, std::vector<iovec>& pieces) const;

   private:
    friend class StretchWriter;
    // Also behind the end of the stretch: its neighbour's.
    std::span<std::byte> ToEndOfBuffer(std::size_t offset) const;

    FileOffset begin_;
    std::size_t size_ = 0;
    std::array<Buffer*, kMaxBuffersOfStretch> buffers_{};
  };

  // Keeps a reference to the file, and starts at its start. Must outlive all engines that are given to it, or what they
  // have in flight.
  explicit StretchWriter(const NewFile& file) : file_(file) {}

  // The next `length` bytes of the file, 1..kMaxStretchBytes. Throws what an earlier Commit threw, on any thread.
  Stretch Reserve(std::size_t length);

  // The stretch is filled in. Submits what became complete by it to `engine`, which is used for nothing else. Throws
  // Error{kFailed} for what the file refuses, now or in an earlier call.
  void Commit(const Stretch& stretch, IoEngine& engine);

  // Returns when all that was submitted to `engine` is written. Throws as Commit does.
  void Settle(IoEngine& engine);

  // Reserve and Commit in one, copying, for any number of bytes.
  void Append(std::span<const std::byte> bytes, IoEngine& engine);

  // Writes the rest: whole blocks through `engine`, what is shorter through the buffered descriptor. Returns the file's
  // length. Throws Error{kFailed}, also where a stretch was never committed or an engine never settled. REQUIRES: no
  // other call runs, and none follows.
  ByteCount Finish(IoEngine& engine);

  // How many buffers were needed at once so far.
  std::size_t buffer_count() const;

 private:
  Buffer& BufferAt(std::uint64_t start);
  void CountCommitted(const Stretch& stretch, IoEngine& engine);
  void Submit(Buffer& buffer, IoEngine& engine);
  void AwaitOne(IoEngine& engine);
  void KeepFailure(const Error& error);
  bool HoldsNoMoreThan(std::size_t rest) const;
  void WriteRest(const Buffer& last, std::size_t rest, IoEngine& engine);

  const NewFile& file_;
  mutable std::mutex mutex_;  // guards all that follows, but not what the buffers hold
  FileOffset next_;
  std::map<std::uint64_t, std::unique_ptr<Buffer>> in_use_;  // by where in the file they start
  std::vector<std::unique_ptr<Buffer>> free_;
  std::optional<Error> failure_;
};

}  // namespace vmsave
