// A guest in this process, with contents that follow from a seed: for benchmarks, and for machines without QEMU.
#pragma once

#include <memory>

#include "io/memory_mapping.h"
#include "writer/ram_block.h"

namespace vmsave {

struct SyntheticShape {
  ByteCount size;             // a multiple of the page size, at least one page
  unsigned zero_percent = 0;  // 0..100
  std::uint64_t seed = 1;
};

// Owns the memory: one block, "pc.ram", in a memfd. Every present page is different from every other and does not
// compress.
class SyntheticGuest {
 public:
  explicit SyntheticGuest(const SyntheticShape& shape);
  SyntheticGuest(const SyntheticGuest&) = delete;
  SyntheticGuest& operator=(const SyntheticGuest&) = delete;

  // Points into this object.
  const GuestImage& image() const { return image_; }

 private:
  FileDescriptor file_;
  MemoryMapping memory_;
  std::vector<std::byte> device_state_;
  GuestImage image_;
};

}  // namespace vmsave
