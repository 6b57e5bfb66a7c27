// What is needed to go on with a guest that nobody serves: kept by a guard for vmrestore --recover, because a QEMU
// whose main thread waits for a page takes no new connection, and answers only out of band.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "io/file_descriptor.h"
#include "qemu/restore_record.h"

namespace vmsave {

struct KeptServing {
  RestoreRecord record;  // with `serving`
  FileDescriptor qmp;    // the connection
  FileDescriptor spare;  // as of LazyBegin; may be not valid
};

enum class KeptEnd { kTaken, kQemuEnded };

// Waits until TakeKept asks for it, in a process of the same user or of root, or QEMU closes the connection. What QEMU
// says meanwhile is passed over. Throws Error{kFailed} where somebody else keeps something for that QEMU already.
KeptEnd KeepUntilTaken(const KeptServing& kept, pid_t qemu);

// What another process keeps for that QEMU, which then ends. Nothing where there is none. Throws Error{kFailed} where
// the one that keeps it is another user's, and not root's.
std::optional<KeptServing> TakeKept(pid_t qemu);

}  // namespace vmsave
