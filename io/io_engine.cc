#include "io/io_engine.h"

#include <fmt/format.h>

#include <cassert>
#include <cerrno>
#include <chrono>
#include <exception>
#include <string>
#include <system_error>
#include <thread>

#include "io/sync_engine.h"
#include "io/uring_engine.h"

namespace vmsave {
namespace {

// EAGAIN means that the kernel is short of something that comes back as other I/O completes.
constexpr std::chrono::milliseconds kPauseBeforeRetry{1};

std::string Position(FileOffset offset) {
  constexpr double kMebibyte = 1024.0 * 1024.0;
  const double mebibytes = static_cast<double>(offset.value()) / kMebibyte;
  if (mebibytes < 1) return fmt::format("byte {}", offset.value());
  if (mebibytes < 10240) return fmt::format("{:.1f} MiB", mebibytes);
  return fmt::format("{:.1f} GiB", mebibytes / 1024);
}

std::string_view Advice(int error_number) {
  switch (error_number) {
    case ENOSPC:
      return "free some space on that file system";
    case EDQUOT:
      return "the quota is used up: free some space, or have it raised";
    case EFBIG:
      return "the file system or a limit of this process (ulimit -f) allows no larger file";
    case EIO:
      return "the kernel log tells what happened to the device";
    case EINVAL:
      return "if it is direct I/O that the file system refuses, leave --bypass-cache out";
    default:
      return "";
  }
}

// Whether there is nothing to read from `offset` on; false where the file cannot be asked.
bool AtEnd(const FileDescriptor& file, FileOffset offset) {
  try {
    return offset.value() >= FileLength(file).value();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

IoEngine::IoEngine(unsigned depth) : depth_(depth), requests_(depth) {
  assert(depth >= 1 && depth <= kMaxDepth);
  free_slots_.reserve(depth);
  for (unsigned slot = depth; slot > 0; --slot) free_slots_.push_back(slot - 1);
}

void IoEngine::SubmitRead(const FileDescriptor& file, std::span<std::byte> bytes, FileOffset offset, RequestId id) {
  Submit(file, bytes.data(), bytes.size(), offset, Direction::kRead, id);
}

void IoEngine::SubmitWrite(const FileDescriptor& file, std::span<const std::byte> bytes, FileOffset offset,
                           RequestId id) {
  // A transfer of direction kWrite is only ever read from.
  Submit(file, const_cast<std::byte*>(bytes.data()), bytes.size(), offset, Direction::kWrite, id);
}

void IoEngine::Submit(const FileDescriptor& file, std::byte* bytes, std::size_t length, FileOffset offset,
                      Direction direction, RequestId id) {
  assert(!full());
  const unsigned slot = free_slots_.back();
  requests_[slot] = {{&file, bytes, length, offset, direction, slot}, id, false};
  Start(requests_[slot].rest);
  free_slots_.pop_back();
  ++in_flight_;
}

RequestId IoEngine::Wait() {
  assert(in_flight_ > 0);
  for (;;) {
    if (const std::optional<RequestId> done = Advance(WaitForOne())) return *done;
  }
}

void IoEngine::Drain() {
  std::exception_ptr first_failure;
  while (in_flight_ > 0) {
    // Outside the try: where waiting itself fails, waiting again would fail for ever.
    const Completion completion = WaitForOne();
    try {
      Advance(completion);
    } catch (const Error&) {
      if (!first_failure) first_failure = std::current_exception();
    }
  }
  if (first_failure) std::rethrow_exception(first_failure);
}

std::optional<RequestId> IoEngine::Advance(Completion completion) {
  Request& request = requests_[completion.slot];
  Transfer& rest = request.rest;
  if (completion.result == -EINTR || completion.result == -EAGAIN) {
    if (completion.result == -EAGAIN) std::this_thread::sleep_for(kPauseBeforeRetry);
    Restart(rest);
    return std::nullopt;
  }
  if (completion.result < 0 || (completion.result == 0 && rest.length > 0)) {
    Release(completion.slot);
    throw Failure(request, completion.result);
  }
  const auto moved = static_cast<std::size_t>(completion.result);
  rest.bytes += moved;
  rest.length -= moved;
  rest.offset += ByteCount{moved};
  request.continued = true;
  if (rest.length > 0) {
    Restart(rest);
    return std::nullopt;
  }
  Release(completion.slot);
  return request.id;
}

void IoEngine::Restart(const Transfer& rest) {
  try {
    Start(rest);
  } catch (...) {
    Release(rest.slot);
    throw;
  }
}

void IoEngine::Release(unsigned slot) {
  free_slots_.push_back(slot);
  --in_flight_;
}

Error IoEngine::Failure(const Request& request, std::int64_t result) {
  const Transfer& rest = request.rest;
  const bool reading = rest.direction == Direction::kRead;
  const std::string what_failed =
      fmt::format("cannot {} {} at {}", reading ? "read" : "write", rest.file->name(), Position(rest.offset));
  const int error_number = static_cast<int>(-result);
  // The rest of a short direct transfer may start within a block, where the kernel answers EINVAL: to a read because
  // the file ended there, to a write because what stopped it short (a full disk, as a rule) hides behind the EINVAL.
  const bool unaligned_rest = error_number == EINVAL && request.continued;
  if (reading && (result == 0 || (unaligned_rest && AtEnd(*rest.file, rest.offset)))) {
    return {ErrorKind::kDamaged, what_failed, "it ends early", fmt::format("{} more bytes were expected", rest.length)};
  }
  if (result == 0) return {ErrorKind::kFailed, what_failed, "the kernel wrote nothing", Advice(ENOSPC)};
  if (unaligned_rest) {
    return {ErrorKind::kFailed, what_failed, "the kernel stopped within a block of direct I/O and refused the rest",
            reading ? "" : "look at the free space and the quota of that file system"};
  }
  return Error::FromErrno(what_failed, error_number, Advice(error_number));
}

std::string_view EngineName(EngineKind kind) {
  return kind == EngineKind::kUring ? "uring" : "sync";
}

EngineChoice ChooseEngine(std::optional<EngineKind> wanted) {
  if (wanted == EngineKind::kSync) return {EngineKind::kSync, ""};
  std::string reason = UringEngine::ReasonAgainst();
  if (reason.empty()) return {EngineKind::kUring, ""};
  if (wanted == EngineKind::kUring) {
    throw Error(ErrorKind::kFailed, "cannot use the uring engine", reason, "the sync engine needs no io_uring");
  }
  return {EngineKind::kSync, std::move(reason)};
}

std::unique_ptr<IoEngine> MakeEngine(EngineKind kind, unsigned depth) {
  if (kind == EngineKind::kUring) return std::make_unique<UringEngine>(depth);
  return std::make_unique<SyncEngine>(depth);
}

}  // namespace vmsave
