#pragma once

#include <stdint.h>

#include "multiboot.h"

constexpr uint32_t kPageShift = 12;
constexpr uint32_t kPageSize = 1 << kPageShift;
constexpr uint32_t kWordsPerPage = kPageSize / sizeof(uint32_t);

// The available RAM between the end of the kernel and 4 GiB, its pages numbered consecutively across regions.
class RamMap {
 public:
  // Keeps nothing of `info`, which may lie in the RAM described.
  explicit RamMap(const MultibootInfo& info);

  uint32_t regions() const { return count_; }
  uint32_t pages() const { return pages_; }

  // The physical address of a page.
  uint32_t Address(uint32_t index) const;

  // Removes pages from the start of the first region that has so many, which must exist; returns their address.
  uint32_t Take(uint32_t pages);

 private:
  struct Region {
    uint32_t first_page;
    uint32_t pages;
  };

  static constexpr uint32_t kMaxRegions = 32;

  void Add(uint64_t begin, uint64_t end);

  Region regions_[kMaxRegions];
  uint32_t count_ = 0;
  uint32_t pages_ = 0;
};
