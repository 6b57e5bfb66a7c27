// Which of several threads' reads a disk serves first.
#pragma once

namespace vmsave {

enum class IoPriority {
  kFirst,   // before all others: the real-time class, for the privileged
  kNormal,  // the best-effort class
  kLast,    // when nobody else wants anything: the idle class
};

// Of the calling thread's reads and writes from now on, by whatever engine (ioprio_set(2)). A scheduler of the disk
// heeds it (mq-deadline from Linux 5.14 on, BFQ); without one there is nothing to heed. False where this thread may
// not.
bool SetIoPriority(IoPriority priority);

}  // namespace vmsave
