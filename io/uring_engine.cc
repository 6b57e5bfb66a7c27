#include "io/uring_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

namespace vmsave {
namespace {

// Marks the completion of an entry that was made void after the kernel had refused to take it.
constexpr std::uint64_t kVoid = ~std::uint64_t{0};
// A length has 32 bits in the ring; what is beyond this is continued like any short transfer.
constexpr std::size_t kLargestTransfer = std::size_t{1} << 30;
constexpr std::chrono::milliseconds kPauseBeforeRetry{1};

bool CanReadAndWrite(io_uring* ring) {
  io_uring_probe* probe = io_uring_get_probe_ring(ring);
  if (probe == nullptr) return false;
  const bool can =
      io_uring_opcode_supported(probe, IORING_OP_READ) != 0 && io_uring_opcode_supported(probe, IORING_OP_WRITE) != 0;
  io_uring_free_probe(probe);
  return can;
}

// Returns 0 or a negative errno; EOPNOTSUPP for an io_uring that is too old.
int SetUp(unsigned depth, io_uring* ring) {
  // COOP_TASKRUN (Linux 5.19) spares us the interrupts at completions that nobody is waiting for yet. SINGLE_ISSUER is
  // not asked for: it binds the ring to the thread that made it, and an engine may be made before its thread is.
  int code = io_uring_queue_init(depth, ring, IORING_SETUP_COOP_TASKRUN);
  if (code == -EINVAL) code = io_uring_queue_init(depth, ring, 0);
  if (code < 0) return code;
  if (CanReadAndWrite(ring)) return 0;
  io_uring_queue_exit(ring);
  return -EOPNOTSUPP;
}

std::string Reason(int code) {
  const std::string text = std::generic_category().message(-code);
  switch (-code) {
    case ENOSYS:
      return fmt::format("the kernel has no io_uring ({})", text);
    case EPERM:
    case EACCES:
      return fmt::format("io_uring is forbidden here ({})", text);
    case EOPNOTSUPP:
      return "the io_uring of this kernel is too old (it takes Linux 5.6)";
    default:
      return fmt::format("io_uring cannot be set up ({})", text);
  }
}

// The kernel could not take entries now; they stay in the ring and can be offered again.
bool IsPassing(int code) {
  return code == -EINTR || code == -EAGAIN || code == -EBUSY;
}

}  // namespace

UringEngine::UringEngine(unsigned depth) : IoEngine(depth), registered_of_slot_(depth, kNotRegistered) {
  const int code = SetUp(depth, &ring_);
  if (code < 0) {
    throw Error(ErrorKind::kFailed, "cannot start the uring engine", Reason(code), "the sync engine needs no io_uring");
  }
  has_file_table_ = io_uring_register_files_sparse(&ring_, kRegisteredFiles) == 0;  // Linux 5.19
}

UringEngine::~UringEngine() {
  WaitUntilKernelIsDone();
  io_uring_queue_exit(&ring_);
}

std::string UringEngine::ReasonAgainst() {
  io_uring ring{};
  const int code = SetUp(1, &ring);
  if (code < 0) return Reason(code);
  io_uring_queue_exit(&ring);
  return "";
}

void UringEngine::Start(const Transfer& transfer) {
  io_uring_sqe* entry = PrepareEntry(transfer);
  ++owed_;
  const int code = io_uring_submit(&ring_);
  if (code >= 0 || IsPassing(code)) return;  // WaitForOne offers again what was not taken
  // It was not taken either and is still ours to change, but not to take back.
  io_uring_prep_nop(entry);
  io_uring_sqe_set_data64(entry, kVoid);
  ReleaseRegistered(transfer.slot);
  throw Error::FromErrno(fmt::format("cannot start I/O on {}", transfer.file->name()), -code);
}

io_uring_sqe* UringEngine::PrepareEntry(const Transfer& transfer) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (entry == nullptr) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot start I/O on {}", transfer.file->name()),
                "the kernel takes no more requests");
  }
  const unsigned registered = AcquireRegistered(transfer.file->number());
  registered_of_slot_[transfer.slot] = registered;
  const bool is_registered = registered != kNotRegistered;
  const int file = is_registered ? static_cast<int>(registered) : transfer.file->number();
  const auto length = static_cast<unsigned>(std::min(transfer.length, kLargestTransfer));
  if (transfer.direction == Direction::kRead) {
    io_uring_prep_read(entry, file, transfer.bytes, length, transfer.offset.value());
  } else {
    io_uring_prep_write(entry, file, transfer.bytes, length, transfer.offset.value());
  }
  if (is_registered) io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(entry, transfer.slot);
  return entry;
}

IoEngine::Completion UringEngine::WaitForOne() {
  for (;;) {
    io_uring_cqe* taken = nullptr;
    if (io_uring_peek_cqe(&ring_, &taken) != 0) {
      const int code = io_uring_submit_and_wait(&ring_, 1);
      if (code < 0 && !IsPassing(code)) throw Error::FromErrno("cannot wait for I/O", -code);
      if (code == -EAGAIN || code == -EBUSY) std::this_thread::sleep_for(kPauseBeforeRetry);
      continue;
    }
    const std::uint64_t tag = io_uring_cqe_get_data64(taken);
    const std::int64_t result = taken->res;
    io_uring_cqe_seen(&ring_, taken);
    --owed_;
    if (tag == kVoid) continue;
    const auto slot = static_cast<unsigned>(tag);
    ReleaseRegistered(slot);
    return {slot, result};
  }
}

unsigned UringEngine::AcquireRegistered(int number) {
  // A lone transfer is not worth the system call that registers its file.
  if (!has_file_table_ || number < 0 || owed_ == 0) return kNotRegistered;
  unsigned unused = kNotRegistered;
  for (unsigned index = 0; index < kRegisteredFiles; ++index) {
    RegisteredFile& entry = registered_files_[index];
    if (entry.transfers == 0) {
      unused = index;
    } else if (entry.number == number) {
      ++entry.transfers;
      return index;
    }
  }
  if (unused == kNotRegistered || io_uring_register_files_update(&ring_, unused, &number, 1) != 1) {
    return kNotRegistered;
  }
  registered_files_[unused] = {number, 1};
  return unused;
}

void UringEngine::ReleaseRegistered(unsigned slot) {
  const unsigned index = registered_of_slot_[slot];
  if (index != kNotRegistered) --registered_files_[index].transfers;
}

// The memory of the transfers belongs to the caller, who may free it as soon as the destructor returns, and the kernel
// cannot be made to leave it alone: transfers of disk files are not cancelled once they run, and closing the ring does
// not wait for them. To return early would let a read write into memory that is somebody else's by then. So this
// waits, as long as a hung disk takes, and does not need io_uring_enter(2) to succeed for that: completions appear in
// memory shared with the kernel, posted at the latest when this thread comes back from any system call.
void UringEngine::WaitUntilKernelIsDone() noexcept {
  // Entries that the kernel never took are only bytes in the ring, and nothing takes them any more.
  unsigned in_kernel = owed_ - io_uring_sq_ready(&ring_);
  while (in_kernel > 0) {
    io_uring_cqe* taken = nullptr;
    const int code = io_uring_wait_cqe(&ring_, &taken);
    if (code == 0) {
      io_uring_cqe_seen(&ring_, taken);
      --in_kernel;
    } else if (code != -EINTR) {
      std::this_thread::sleep_for(kPauseBeforeRetry);
    }
  }
}

}  // namespace vmsave
