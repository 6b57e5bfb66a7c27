// How an operator stops work that is under way (Ctrl-C, SIGTERM): a descriptor that becomes readable and stays so.
#pragma once

#include "io/file_descriptor.h"

namespace vmsave {

// Safe to ask from any thread. Long loops ask once per chunk; code that waits in poll(2) adds descriptor() to its set.
class Interrupt {
 public:
  // One that never comes.
  Interrupt();

  // Any readable descriptor: a signalfd, or an eventfd.
  explicit Interrupt(FileDescriptor readable_when_requested);

  // Blocks SIGINT, SIGTERM, SIGHUP and SIGQUIT for the calling thread and all threads that it starts later, and turns
  // them into a request, but those that are ignored; blocks SIGPIPE and SIGXFSZ, which come as errors of the calls too.
  // Call before the first thread starts. A program started afterwards must get them back (see UnblockSignals).
  static Interrupt FromSignals();

  bool requested() const;

  // Throws Error{kInterrupted} if requested.
  void Check() const;

  // Takes the request back, so that another one can be told from it. For an interrupt that one thread looks at.
  void Take() const;

  int descriptor() const { return fd_.number(); }

  // Waits until `fd` is readable. False when `timeout_ms` passed first (-1 = no limit); throws Error{kInterrupted} on a
  // request.
  bool WaitReadable(int fd, int timeout_ms) const;

 private:
  FileDescriptor fd_;
};

// From now on, for the calling thread and all threads that it starts later, a terminal stops this process no more: not
// by Ctrl-Z (SIGTSTP), nor because it reads or writes there from the background (SIGTTIN, SIGTTOU). For work on a guest
// that would stand still meanwhile. Call before the first thread starts.
void HoldOffJobControl();

// Puts the signals that FromSignals and HoldOffJobControl changed back, for a child between fork and exec.
// Async-signal-safe.
void UnblockSignals();

}  // namespace vmsave
