// A process that was found by its number, and is not mistaken for another that has this number later.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>

#include "io/file_descriptor.h"

namespace vmsave {

// Held by a descriptor of it (pidfd); where the kernel has none (Linux < 5.3), by its number and the time of its start.
// Need not be a child. Movable, not synchronised. One that is not valid counts as ended: none was named, there is no
// such process, or it cannot be seen from here.
class HeldProcess {
 public:
  HeldProcess() = default;
  explicit HeldProcess(pid_t pid);
  // By a descriptor that another process has opened.
  explicit HeldProcess(FileDescriptor pidfd) : pidfd_(std::move(pidfd)) {}

  bool valid() const { return pidfd_.valid() || started_ != 0; }

  // Whether it has ended, also where nobody has reaped it yet.
  bool HasEnded() const;
  // False where it has not ended by then.
  bool AwaitEnd(std::chrono::milliseconds timeout) const;

  // Nothing happens where it has ended, or is somebody else's.
  void Signal(int signal) const;

  // SIGTERM, and after a grace SIGKILL. False where not even that has ended it.
  bool End() const;

  // For poll(2), which finds it readable once the process has ended, and for other processes. Not valid on Linux < 5.3.
  const FileDescriptor& descriptor() const { return pidfd_; }

 private:
  FileDescriptor pidfd_;
  pid_t pid_ = 0;
  std::uint64_t started_ = 0;  // in ticks since the machine's start; where there is no descriptor
};

// The process on the other end of a unix socket (SO_PEERCRED); 0 where it cannot be seen from here. Throws
// Error{kFailed} where `socket` is none.
pid_t PeerPid(const FileDescriptor& socket);

}  // namespace vmsave
