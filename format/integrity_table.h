// The integrity table of a version 3 image: a hash for every byte that counts (FORMAT.md, "Integrity table").
// Little-endian.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/units.h"

namespace vmsave {

inline constexpr std::uint64_t kIntegrityAlignment = 4096;
inline constexpr std::uint64_t kChunkBytes = std::uint64_t{64} * 1024;  // of guest RAM that one hash covers
inline constexpr std::uint64_t kPagesPerChunk = kChunkBytes / kPageBytes;

constexpr std::uint64_t ChunkCount(ByteCount length) {
  return (length.value() + kChunkBytes - 1) / kChunkBytes;
}

// A range of the file outside of the pages: block list, bitmaps, device state.
struct HashedRange {
  FileOffset offset;
  ByteCount length;
  std::uint64_t hash = 0;
};

struct HashedBlock {
  std::string name;
  ByteCount length;
  std::optional<GuestAddress> address;
  std::vector<std::uint64_t>
      chunk_hashes;  // over the present pages of each chunk in ascending order; 0 for a chunk that has none
};

struct IntegrityTable {
  std::vector<HashedRange> ranges;
  std::vector<HashedBlock> blocks;
};

std::vector<std::byte> EncodeIntegrityTable(const IntegrityTable& table);

// Checks magic, version, algorithm and chunk size, then the table's own hash, then every field. Throws Error{kDamaged}
// naming `file`.
IntegrityTable DecodeIntegrityTable(std::span<const std::byte> bytes, std::string_view file);

}  // namespace vmsave
