// Which pages of a shared mapping of a file lie in memory, without touching any: reading a hole of a file in memory
// (tmpfs, memfd) allocates it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/file_descriptor.h"

namespace vmsave {

// A page that is told to be resident is data of the file. One that is not may be a hole, or data that is swapped out or
// on a disk.
class ResidentPages {
 public:
  // Looks at each page of `memory`, which is page-aligned and mapped (mincore(2)). Where the kernel cannot tell none
  // is.
  void Look(std::span<const std::byte> memory);

  // How many pages from that one on are resident; up to the first that is not.
  std::uint64_t CountFrom(std::uint64_t page) const;

 private:
  std::vector<unsigned char> resident_;
};

// Whether mincore(2) tells this process the truth: for a file that it neither owns nor may write to, all pages count as
// resident (Linux 5.2 and later, mm/mincore.c).
bool CanTellResidentPages(const FileDescriptor& file);

}  // namespace vmsave
