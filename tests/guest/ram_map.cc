#include "ram_map.h"

extern "C" char kernel_end[];

namespace {

constexpr uint64_t kLimit = uint64_t{1} << 32;

}  // namespace

RamMap::RamMap(const MultibootInfo& info) {
  if ((info.flags & kMultibootHasMemoryMap) == 0) return;
  const uint32_t end = info.memory_map + info.memory_map_size;
  for (uint32_t at = info.memory_map; at < end;) {
    const auto& memory = *reinterpret_cast<const MultibootMemory*>(at);
    if (memory.type == kMultibootAvailable) Add(memory.begin, memory.begin + memory.length);
    at += memory.size + static_cast<uint32_t>(sizeof memory.size);
  }
}

void RamMap::Add(uint64_t begin, uint64_t end) {
  const uint64_t lowest = reinterpret_cast<uint32_t>(kernel_end);
  if (begin < lowest) begin = lowest;
  if (end > kLimit) end = kLimit;
  const auto first_page = static_cast<uint32_t>((begin + kPageSize - 1) >> kPageShift);
  const auto end_page = static_cast<uint32_t>(end >> kPageShift);
  if (first_page >= end_page || count_ == kMaxRegions) return;
  regions_[count_++] = {first_page, end_page - first_page};
  pages_ += end_page - first_page;
}

uint32_t RamMap::Address(uint32_t index) const {
  const Region* region = regions_;
  for (; index >= region->pages; ++region) index -= region->pages;
  return (region->first_page + index) << kPageShift;
}

uint32_t RamMap::Take(uint32_t pages) {
  Region* region = regions_;
  while (region->pages < pages) ++region;
  const uint32_t address = region->first_page << kPageShift;
  *region = {region->first_page + pages, region->pages - pages};
  pages_ -= pages;
  return address;
}
