// What is saved: a guest's RAM as spans of memory, and the rest of the guest. Knows no hypervisor.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/qemu_stream.h"
#include "format/units.h"
#include "io/file_descriptor.h"

namespace vmsave {

// One RAM block. The memory must stay mapped, and the guest stopped, until the guest is released.
struct RamBlock {
  std::string name;
  std::span<const std::byte> memory;  // page-aligned, whole pages
  std::optional<GuestAddress> address;

  // The shared file that the memory is a mapping of, if it is one: its holes are pages that were never touched.
  const FileDescriptor* backing = nullptr;
  FileOffset backing_start;

  ByteCount length() const { return ByteCount{memory.size()}; }
  std::uint64_t pages() const { return memory.size() / kPageBytes; }
};

// A whole guest, stopped.
struct GuestImage {
  StreamFrame frame;
  std::vector<RamBlock> blocks;
  std::span<const std::byte> device_state;  // everything behind ram's END in QEMU's stream
  std::string description;
  bool was_running = true;

  // Called once, when nothing more is needed of the blocks' memory; never where that does not come about. What it
  // throws ends the writing.
  std::function<void()> release = [] {};

  ByteCount ram_length() const;
};

// Bytes of the block that its backing file holds; its length where that cannot be told. Looks at all of them; what the
// file has in all is known at once, and no less: MostTouchedBytes.
ByteCount TouchedBytes(const RamBlock& block);
ByteCount MostTouchedBytes(const RamBlock& block);

// The first touched byte at or behind `from`, and the end of that stretch; nothing where the rest of the block is one
// hole.
struct TouchedRange {
  std::uint64_t begin;
  std::uint64_t end;
};
std::optional<TouchedRange> NextTouched(const RamBlock& block, std::uint64_t from);

}  // namespace vmsave
