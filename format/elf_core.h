// The head of an ELF core file whose memory is a guest's RAM (elf(5)), as gdb and crash open it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "format/units.h"

namespace vmsave {

// Memory that is seen at `address` and lies in the file at `offset`.
struct CoreRange {
  GuestAddress address;
  FileOffset offset;
  ByteCount length;
};

// ELF header, program headers and a note: 64 bits, x86-64, little-endian. One PT_LOAD for each range, at the same
// physical and virtual address, since no paging is known of. The note, "vmsave", holds `note`; there is none of
// registers.
std::vector<std::byte> EncodeElfCore(std::span<const CoreRange> ranges, std::string_view note);

}  // namespace vmsave
