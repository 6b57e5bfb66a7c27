// What the guard of a restore does once vmrestore was killed.
#pragma once

#include <string_view>

#include "io/guard_process.h"

namespace vmsave {

// Roles of the descriptors that are held. A spare channel is held by its name.
inline constexpr std::string_view kLoadedQmpRole = "qmp";       // the connection to QEMU, once the guest is loaded
inline constexpr std::string_view kHandOverRole = "hand-over";  // to who kept the guest before (kept_serving.h)
inline constexpr std::string_view kProcessRole = "process";     // a pidfd, where the kernel has those

// Ends the QEMU of the restore that the record (of EncodeRestoreRecord) tells of, or finishes it where the guest is
// loaded already. Waits up to 10 minutes for a QEMU that does not answer. Says what has become of the guest on standard
// error and in the system's log.
void UndoRestore(GuardProcess::Legacy legacy);

}  // namespace vmsave
