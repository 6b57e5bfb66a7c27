// Reads what QEMU's human monitor prints about the guest's memory. The texts are made for people and come from a
// process that may be hostile: a line that does not look as expected tells nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/units.h"

namespace vmsave {

// A piece of a RAM region that the guest sees at a guest-physical address.
struct RamSection {
  std::string region;
  GuestAddress address;
  ByteCount offset;  // of the piece in its region
};

// The RAM sections of the system's memory in the text of `info mtree -f`. Views of other address spaces are left out:
// gpa2hva does not look there.
std::vector<RamSection> ReadMemoryTree(std::string_view text);

// The host address in the text of `gpa2hva ADDRESS`, nothing if it is not about that address in that region.
std::optional<std::uint64_t> ReadHostAddress(std::string_view text, GuestAddress address, std::string_view region);

}  // namespace vmsave
