#include "writer/ram_block.h"

#include <sys/stat.h>

#include <algorithm>

#include "io/sparse_file.h"

namespace vmsave {

ByteCount GuestImage::ram_length() const {
  ByteCount total;
  for (const RamBlock& block : blocks) total += block.length();
  return total;
}

std::optional<TouchedRange> NextTouched(const RamBlock& block, std::uint64_t from) {
  if (from >= block.memory.size()) return std::nullopt;
  if (block.backing == nullptr) return TouchedRange{from, block.memory.size()};
  const FileOffset start = block.backing_start;
  const auto data = NextData(*block.backing, start + ByteCount{from}, start + block.length());
  if (!data) return std::nullopt;
  return TouchedRange{(data->begin - start).value(), (data->end - start).value()};
}

ByteCount MostTouchedBytes(const RamBlock& block) {
  struct stat status {};
  if (block.backing == nullptr || ::fstat(block.backing->number(), &status) != 0) return block.length();
  constexpr std::uint64_t kStorageBlock = 512;  // stat(2)
  return std::min(block.length(), ByteCount{static_cast<std::uint64_t>(status.st_blocks) * kStorageBlock});
}

ByteCount TouchedBytes(const RamBlock& block) {
  std::uint64_t touched = 0;
  for (auto range = NextTouched(block, 0); range; range = NextTouched(block, range->end)) {
    touched += range->end - range->begin;
  }
  return ByteCount{touched};
}

}  // namespace vmsave
