// The guest's RAM as this process can reach it: which backends hold it, and a mapping of each.
#pragma once

#include <string>
#include <vector>

#include "io/memory_mapping.h"
#include "qemu/qmp_client.h"

namespace vmsave {

// A memory backend object of QEMU (query-memdev, qom-get /objects/ID).
struct MemoryBackend {
  std::string id;
  std::string type;  // "memory-backend-file", "memory-backend-memfd", "memory-backend-ram", ...
  ByteCount size;
  bool shared = false;
  std::string path;  // mem-path of memory-backend-file, else empty
};

// One shared backend, opened and mapped.
struct MappedBackend {
  MemoryBackend backend;
  FileDescriptor file;
  FileOffset start_in_file;  // where the backend's first byte lies in `file`
  MemoryMapping memory;      // exactly backend.size bytes
  std::string block_name;    // of its RAM block in a migration stream: the id, with old machine types "/objects/ID"
};

// All memory backends, in QEMU's order, which is not that of their addresses (the last one made comes first). A guest
// without any (QEMU < 5.0 with plain -m) has private RAM. Works on QEMU >= 4.0.
std::vector<MemoryBackend> QueryMemoryBackends(QmpClient& qmp);

// Why the guest's RAM cannot be read from here; empty if all of it lies in shared backends (memory-backend-file or
// memory-backend-memfd with share=on). Names the backend that is private.
std::string WhyNotShared(const std::vector<MemoryBackend>& backends);

// Opens and maps every backend. How: the host address of the backend in QEMU's process (HMP `info mtree -f` gives a
// guest address that shows it, HMP `gpa2hva` its host address), then /proc/PID/maps gives file and offset, and the
// descriptor of QEMU with that file (/proc/PID/fd) is opened anew. What was opened is proved to be that file: our own
// mapping of it must show the same device and inode in /proc/self/maps. Only a mapping that QEMU itself shares, and for
// kReadWrite may write, is accepted, so that a guest that took over its QEMU gains nothing from our permissions.
// Throws Error{kFailed}: names the backend, why, and what to do (run as the user of QEMU, or as root).
std::vector<MappedBackend> MapBackends(QmpClient& qmp, const std::vector<MemoryBackend>& backends,
                                       MemoryMapping::Access access);

// Before a guest is restored there, whichever way: throws Error{kFailed} where any other process has the memory of a
// shared backend mapped as well, since a guest may still run in it. What cannot be told from here is passed over.
void RefuseMemoryInUse(QmpClient& qmp, const std::vector<MemoryBackend>& backends);

}  // namespace vmsave
