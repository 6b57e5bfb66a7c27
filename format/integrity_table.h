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

// Magic, version, algorithm and chunk size, which a table begins with.
inline constexpr std::size_t kTableHeadBytes = 20;
inline constexpr std::size_t kTableHashBytes = 8;  // of the table's own hash, which it ends with

std::vector<std::byte> EncodeIntegrityTable(const IntegrityTable& table);

// Whether `head` is one that a table can begin with: a look at it before memory is taken for the rest. Throws
// Error{kDamaged} naming `file`.
void CheckTableHead(std::span<const std::byte, kTableHeadBytes> head, std::string_view file);

// Checks magic, version, algorithm and chunk size, then the table's own hash, then every field. Throws Error{kDamaged}
// naming `file`.
IntegrityTable DecodeIntegrityTable(std::span<const std::byte> bytes, std::string_view file);

}  // namespace vmsave
