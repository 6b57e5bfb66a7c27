#include "format/mapped_ram.h"

#include <fmt/format.h>

#include <array>

namespace vmsave {
namespace {

constexpr std::uint32_t kMappedRamVersion = 1;

ByteCount TotalLength(const std::vector<BlockShape>& blocks) {
  ByteCount total;
  for (const BlockShape& block : blocks) {
    if (block.length.value() % kPageBytes != 0) {
      throw Error(ErrorKind::kDamaged, fmt::format("RAM block {}", block.name),
                  "its length is not a multiple of the page size");
    }
    total += block.length;
  }
  return total;
}

// The header of a block whose header itself lies at `offset`.
MappedRamHeader PlaceBlock(FileOffset offset, ByteCount length) {
  const FileOffset bitmap = offset + ByteCount{kMappedRamHeaderBytes};
  const FileOffset bitmap_end = bitmap + ByteCount{BitmapBytes(length.value() / kPageBytes)};
  return {bitmap, FileOffset{RoundUp(bitmap_end.value(), kPagesAlignment)}};
}

}  // namespace

void AppendMappedRamHeader(ByteWriter& out, const MappedRamHeader& header) {
  out.AppendBigEndian(kMappedRamVersion);
  out.AppendBigEndian(kPageBytes);
  out.AppendBigEndian(header.bitmap_offset.value());
  out.AppendBigEndian(header.pages_offset.value());
}

MappedRamHeader TakeMappedRamHeader(ByteReader& in, const std::string& block) {
  const auto version = in.TakeBigEndian<std::uint32_t>();
  const auto page_size = in.TakeBigEndian<std::uint64_t>();
  if (version != kMappedRamVersion || page_size != kPageBytes) {
    throw Error(ErrorKind::kDamaged, fmt::format("mapped-ram header of block {}", block),
                fmt::format("version {} with pages of {} bytes is not known; version {} with {} is", version, page_size,
                            kMappedRamVersion, kPageBytes));
  }
  const FileOffset bitmap{in.TakeBigEndian<std::uint64_t>()};
  return {bitmap, FileOffset{in.TakeBigEndian<std::uint64_t>()}};
}

FixedOffsetLayout LayOutFixedOffsets(FileOffset stream_start, const StreamFrame& frame,
                                     const std::vector<BlockShape>& blocks) {
  FixedOffsetLayout layout;
  const std::array capabilities{kMappedRamCapability};
  ByteWriter part;
  AppendStreamStart(part, frame, capabilities, TotalLength(blocks));
  FileOffset part_offset = stream_start;
  for (const BlockShape& block : blocks) {
    AppendBlockEntry(part, block.name, block.length);
    const MappedRamHeader header = PlaceBlock(part_offset + ByteCount{part.size()}, block.length);
    AppendMappedRamHeader(part, header);
    layout.blocks.push_back(header);
    layout.stream_parts.push_back({part_offset, part.Take()});
    part = ByteWriter();
    part_offset = header.pages_offset + block.length;
  }
  AppendRamSectionEnd(part, frame);
  AppendRamEnd(part, frame);
  layout.device_state_offset = part_offset + ByteCount{part.size()};
  layout.stream_parts.push_back({part_offset, part.Take()});
  return layout;
}

}  // namespace vmsave
