// Everything of a stopped guest but its shared RAM: block list, private ROM blocks, device state. Taken from a
// migration with x-ignore-shared (QEMU migration/ram.c; QEMU >= 4.0), in milliseconds.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "format/stream_reader.h"
#include "io/memory_mapping.h"
#include "qemu/qmp_client.h"

namespace vmsave {

class SaveGuard;

struct CapturedState {
  StreamContents contents;
  std::vector<MemoryMapping> private_memory;  // one for each block; empty for those that were mapped
  std::vector<std::byte> device_state;
};

// The guest must be stopped. `mapped`: names of the blocks whose RAM the caller reads itself. QEMU >= 8.1 sends pages
// of shared memory all the same if it is no named file (memfd): they are dropped. Blocks of more than `most_ram` are
// refused. Afterwards the guest is in "postmigrate" and can be continued. Throws Error; the migration is then
// cancelled.
CapturedState CaptureDevices(QmpClient& qmp, const std::set<std::string>& mapped, ByteCount most_ram,
                             const Interrupt& interrupt, SaveGuard* guard = nullptr);

}  // namespace vmsave
