// Moves aligned blocks between memory and files, many at a time. Two engines do the same: io_uring, and plain
// preadv/pwritev where the kernel has no io_uring (or forbids it). It knows nothing of guests or images.
//
// An engine is used by one thread at a time: not thread-safe, one engine per channel. It may be made by another thread
// than the one that uses it, but that thread must not end with requests in flight: the kernel would cancel them. From
// submission until a request's completion has been returned by Wait or Drain, its memory must stay valid and, for a
// read, untouched, and its FileDescriptor must stay where it is, and open. The destructor waits for what is in flight.
// An engine may hold a file open for itself until it is destroyed, even after the FileDescriptor has been closed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "format/units.h"
#include "io/file_descriptor.h"

namespace vmsave {

enum class EngineKind { kUring, kSync };

// "uring" or "sync".
std::string_view EngineName(EngineKind kind);

// What the caller knows a request by; given back when it completes.
using RequestId = std::uint64_t;

class IoEngine {
 public:
  static constexpr unsigned kMaxDepth = 4096;

  virtual ~IoEngine() = default;
  IoEngine(const IoEngine&) = delete;
  IoEngine& operator=(const IoEngine&) = delete;

  virtual EngineKind kind() const = 0;

  // Queues a transfer. REQUIRES: in_flight() < depth(). For a file opened with O_DIRECT, address, length and offset
  // keep to its alignment (direct_alignment.h). Lengths are at most 1 GiB. Throws Error{kFailed} if the request cannot
  // be queued.
  void SubmitRead(const FileDescriptor& file, std::span<std::byte> bytes, FileOffset offset, RequestId id = 0);
  void SubmitWrite(const FileDescriptor& file, std::span<const std::byte> bytes, FileOffset offset, RequestId id = 0);

  // Waits for one request to be done, all of it: a short transfer is continued at the next byte, EINTR and EAGAIN are
  // retried. REQUIRES: in_flight() > 0. Throws Error{kFailed} naming file, offset and errno text, or for a read past
  // the end of the file Error{kDamaged} ("ends early"); that request is then no longer in flight, the others still are.
  RequestId Wait();

  // Waits until nothing is in flight. Throws the first failure, after the rest has completed.
  void Drain();

  unsigned depth() const { return depth_; }
  unsigned in_flight() const { return in_flight_; }
  bool full() const { return in_flight_ == depth_; }

 protected:
  explicit IoEngine(unsigned depth);

  enum class Direction : std::uint8_t { kRead, kWrite };

  // What is left of one request. `slot` numbers it among those in flight, 0..depth-1.
  struct Transfer {
    const FileDescriptor* file;
    std::byte* bytes;  // written to only by a read
    std::size_t length;
    FileOffset offset;
    Direction direction;
    unsigned slot;
  };
  // result: bytes moved, or a negative errno.
  struct Completion {
    unsigned slot;
    std::int64_t result;
  };

  // Begins a transfer, or throws Error{kFailed} and has nothing of it in flight. It may move fewer bytes than asked.
  virtual void Start(const Transfer& transfer) = 0;

  // Waits for the end of any transfer that was started. Throws Error{kFailed} where the waiting itself fails; then
  // everything in flight still is.
  virtual Completion WaitForOne() = 0;

 private:
  struct Request {
    Transfer rest;
    RequestId id;
    bool continued;  // a part of it has been moved already
  };
  void Submit(const FileDescriptor& file, std::byte* bytes, std::size_t length, FileOffset offset, Direction direction,
              RequestId id);
  // Returns the request's id once all of it is done; otherwise starts what is left. Throws as Wait does.
  std::optional<RequestId> Advance(Completion completion);
  void Restart(const Transfer& rest);
  void Release(unsigned slot);
  static Error Failure(const Request& request, std::int64_t result);

  unsigned depth_;
  unsigned in_flight_ = 0;
  std::vector<Request> requests_;
  std::vector<unsigned> free_slots_;
};

// Which engine to use, and why not io_uring where nobody asked for another.
struct EngineChoice {
  EngineKind kind;
  std::string fallback_reason;  // empty, or "the kernel has no io_uring (Function not implemented)"
};

// `wanted`: nothing = the best there is, for which io_uring is tried once. Throws Error{kFailed} where kUring is wanted
// and cannot be had.
EngineChoice ChooseEngine(std::optional<EngineKind> wanted);

// An engine that keeps up to `depth` requests (1..IoEngine::kMaxDepth) in flight. The sync engine finishes each request
// as it is submitted.
std::unique_ptr<IoEngine> MakeEngine(EngineKind kind, unsigned depth);

}  // namespace vmsave
