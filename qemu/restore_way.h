// How a guest's RAM gets from an image into QEMU.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "qemu/guest_ram.h"
#include "qemu/multifd_incoming.h"
#include "qemu/qmp_client.h"
#include "reader/chunk_reader.h"
#include "reader/read_options.h"

namespace vmsave {

enum class RestoreWay {
  kMemory,   // it lies in a shared backend: vmsave reads the pages into it
  kNative,   // QEMU reads the image itself (mapped-ram)
  kMultifd,  // as a stream whose pages come over parallel channels beside it
  kStream,   // as the legacy stream
};

// "memory", "native", "multifd", "stream".
std::string_view RestoreWayName(RestoreWay way);

struct RestoreWish {
  // Else the first that works, in the order above; but kNative, where nobody looks at a page's checksum, only for
  // images that have none, or where the caller has checked them or does not want it; and kMultifd only with more than
  // one channel.
  std::optional<RestoreWay> way;
  ReadOptions read;
  PageChecks checks = PageChecks::kOn;  // of pages that pass through this process
  bool pages_verified = false;          // all of them have been checked already
};

struct WayChoice {
  RestoreWay way{};
  std::string why_not_faster;                // why an earlier way was not taken; empty where the first was
  std::vector<MappedBackend> ram;            // with kMemory
  std::unique_ptr<MultifdIncoming> multifd;  // with kMultifd: not connected yet
  std::set<std::string> zero_blocks;         // with kMultifd: RAM blocks that are all zero already
};

// What can be told without a QEMU: an image that no vmrestore can load, one that no QEMU takes in the way that is
// wished, a file system without the direct I/O that is wished. Throws Error{kDamaged} for the first, Error{kFailed}.
void CheckWish(const Image& image, const RestoreWish& wish);

// Whether a backend's memory may hold anything from before: its file does. True where that cannot be looked at.
bool MayHoldData(const MemoryBackend& backend);

// Nothing of QEMU is changed. `announce` is told of a directory for its sockets. REQUIRES: CheckWish has passed. Throws
// Error{kFailed} where what was wished for does not work here.
WayChoice ChooseWay(QmpClient& qmp, const Image& image, const RestoreWish& wish, const Interrupt& interrupt,
                    const PrivateDirectory::Announce& announce = {});

}  // namespace vmsave
