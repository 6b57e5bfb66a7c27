// The fixed-offset layout of RAM in a file, and of a whole version 3 image (FORMAT.md, "Fixed-offset layout"; QEMU
// docs/devel/migration/mapped-ram.rst and migration/ram.c).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/page_bitmap.h"
#include "format/qemu_stream.h"
#include "format/units.h"

namespace vmsave {

inline constexpr std::uint64_t kPagesAlignment = 1 << 20;
inline constexpr std::uint64_t kMappedRamHeaderBytes = 28;

// The header that follows a block's entry in the block list. Both are offsets in the file.
struct MappedRamHeader {
  FileOffset bitmap_offset;
  FileOffset pages_offset;
};

void AppendMappedRamHeader(ByteWriter& out, const MappedRamHeader& header);

// Checks version and page size. Throws Error{kDamaged} naming the block.
MappedRamHeader TakeMappedRamHeader(ByteReader& in, const std::string& block);

// Bytes of the bitmap of that many pages.
constexpr std::uint64_t BitmapBytes(std::uint64_t pages) {
  return (pages + 63) / 64 * 8;
}

// Some bytes and where in the file they go.
struct PlacedBytes {
  FileOffset offset;
  std::vector<std::byte> bytes;
};

// Where everything of a version 3 image lies. Computed once, before the first write.
struct FixedOffsetLayout {
  std::vector<MappedRamHeader> blocks;  // in the order of the shapes
  std::vector<PlacedBytes>
      stream_parts;  // block i's part ends where its bitmap starts; the last part is all behind the pages
  FileOffset device_state_offset;
};

// Lays the stream out from `stream_start` on. Throws Error{kDamaged} for a length that is not a multiple of the page
// size, or sizes that overflow.
FixedOffsetLayout LayOutFixedOffsets(FileOffset stream_start, const StreamFrame& frame,
                                     const std::vector<BlockShape>& blocks);

}  // namespace vmsave
