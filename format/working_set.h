// The pages that a guest needed first after it was restored, in the order in which it needed them (FORMAT.md, "Working
// set"). Kept beside the image; only a hint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "format/units.h"

namespace vmsave {

// Neighbouring chunks (of kChunkBytes) of one RAM block.
struct ChunkRun {
  std::uint32_t block;  // its place in the image's block list
  std::uint32_t count;
  std::uint64_t first;

  friend bool operator==(const ChunkRun&, const ChunkRun&) = default;
};

inline constexpr std::size_t kMaxChunkRuns = std::size_t{1} << 18;  // 4 MiB of them

struct WorkingSet {
  std::uint64_t image = 0;  // its identity
  std::vector<ChunkRun> runs;
};

// REQUIRES: at most kMaxChunkRuns.
std::vector<std::byte> EncodeWorkingSet(const WorkingSet& set);

// Whether a file that begins with these is a working set of a known version, whole or not.
inline constexpr ByteCount kWorkingSetHeadLength{24};
bool IsWorkingSetHead(std::span<const std::byte> bytes);

// Checks length, magic, version and checksum. Which blocks and chunks there are, the image tells. Throws
// Error{kDamaged} naming `file`.
WorkingSet DecodeWorkingSet(std::span<const std::byte> bytes, std::string_view file);

}  // namespace vmsave
