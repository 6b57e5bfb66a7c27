// Where QEMU's PC machines put the guest's RAM in its physical address space.
#pragma once

#include <string_view>
#include <vector>

#include "format/units.h"

namespace vmsave {

// A stretch of the RAM that is one piece for the guest.
struct RamRange {
  GuestAddress address;
  ByteCount offset;  // in the RAM
  ByteCount length;

  friend bool operator==(const RamRange&, const RamRange&) = default;
};

// Of machine types pc-i440fx-*, pc-q35-* and the older pc-*, in ascending order: all of it from 0 on, or with a gap for
// devices below 4 GiB (QEMU hw/i386/pc_piix.c and pc_q35.c; as it is without the machine's option max-ram-below-4g).
// Throws Error{kFailed} for other machines, and for so much RAM that its place depends on the host's CPU.
std::vector<RamRange> PcMemory(std::string_view machine, ByteCount ram);

}  // namespace vmsave
