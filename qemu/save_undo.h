// What the guard of a save does once vmsave was killed.
#pragma once

#include <string_view>

#include "io/guard_process.h"

namespace vmsave {

// Roles of the descriptors that are held.
inline constexpr std::string_view kQmpRole = "qmp";              // the connection to the guest
inline constexpr std::string_view kDirectoryRole = "directory";  // of the image
inline constexpr std::string_view kSocketRole = "socket";        // that QEMU sends over

// Undoes the save that the record (of EncodeSaveRecord) tells of, or finishes it where the image has its name already.
// Waits up to 10 minutes for a QEMU that does not answer. Says what has become of guest and image on standard error and
// in the system's log.
void UndoSave(GuardProcess::Legacy legacy);

}  // namespace vmsave
