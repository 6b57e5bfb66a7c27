#include "writer/fixed_offset_file.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "format/page_hash.h"

namespace vmsave {
namespace {

SaveHeader MakeHeader(std::size_t description_bytes, bool was_running, FixedOffsetKind kind) {
  SaveHeader header;
  header.data_length = static_cast<std::uint32_t>(description_bytes);
  header.was_running = was_running;
  header.format = BodyFormat::kSparse;
  header.version = kind == FixedOffsetKind::kLibvirtSparse ? 2 : 3;
  if (header.version == 3) header.extension.emplace();
  return header;
}

FixedOffsetLayout LayOut(FileOffset stream_start, const StreamFrame& frame, const std::vector<HashedBlock>& blocks) {
  std::vector<BlockShape> shapes;
  shapes.reserve(blocks.size());
  for (const HashedBlock& block : blocks) shapes.push_back({block.name, block.length});
  return LayOutFixedOffsets(stream_start, frame, shapes);
}

std::vector<FileOffset> PagesOffsets(const FixedOffsetLayout& layout) {
  std::vector<FileOffset> offsets;
  for (const MappedRamHeader& block : layout.blocks) offsets.push_back(block.pages_offset);
  return offsets;
}

}  // namespace

FixedOffsetEnvelope::FixedOffsetEnvelope(const NewFile& file, std::string_view description, bool was_running,
                                         FixedOffsetKind kind)
    : file_(file),
      description_(EncodeDescription(description)),
      header_(MakeHeader(description_.size(), was_running, kind)) {
  WriteAt(file_.buffered(), EncodeSaveHeader(header_), FileOffset{0});
  WriteAt(file_.buffered(), description_, FileOffset{kSaveHeaderBytes});
}

ByteCount FixedOffsetEnvelope::Close(FileOffset stream_end, const std::optional<IntegrityTable>& table) {
  if (!header_.extension) return stream_end - FileOffset{0};
  HeaderExtension& extension = *header_.extension;
  extension.stream_end = stream_end;
  FileOffset end = stream_end;
  if (table) {
    const std::vector<std::byte> encoded = EncodeIntegrityTable(*table);
    extension.integrity_offset = FileOffset{RoundUp(stream_end.value(), kIntegrityAlignment)};
    extension.integrity_length = ByteCount{encoded.size()};
    WriteAt(file_.buffered(), encoded, extension.integrity_offset);
    end = extension.integrity_offset + extension.integrity_length;
  }
  std::vector<std::byte> before_stream(kSaveHeaderBytes);
  before_stream.insert(before_stream.end(), description_.begin(), description_.end());
  PutSaveHeader(before_stream, header_);
  WriteAt(file_.buffered(), std::span(before_stream).first(kSaveHeaderBytes), FileOffset{0});
  return end - FileOffset{0};
}

FixedOffsetFile::FixedOffsetFile(const NewFile& file, const FixedOffsetGuest& guest, FixedOffsetKind kind)
    : file_(file),
      kind_(kind),
      envelope_(file, guest.description, guest.was_running, kind),
      table_{{}, guest.blocks},
      layout_(LayOut(envelope_.stream_start(), guest.frame, guest.blocks)),
      places_(file.pages(), PagesOffsets(layout_)) {
  SetFileLength(file_.buffered(), ByteCount{layout_.device_state_offset.value()});
  for (HashedBlock& block : table_.blocks) {
    present_.emplace_back(block.length.value() / kPageBytes);
    if (has_checksums()) block.chunk_hashes.resize(ChunkCount(block.length));
  }
}

// The stream's parts, each with the bitmap behind it, and the device state behind the last.
ByteCount FixedOffsetFile::Finish(const StreamFrame& frame, std::span<const std::byte> device_state) {
  LayOutAgain(frame);
  for (std::size_t i = 0; i < layout_.stream_parts.size(); ++i) {
    PlacedBytes& part = layout_.stream_parts[i];
    if (i == layout_.blocks.size()) {
      part.bytes.insert(part.bytes.end(), device_state.begin(), device_state.end());
    } else {
      const std::vector<std::byte> bitmap = present_[i].Encode();
      part.bytes.insert(part.bytes.end(), bitmap.begin(), bitmap.end());
    }
    WriteAt(file_.buffered(), part.bytes, part.offset);
    table_.ranges.push_back({part.offset, ByteCount{part.bytes.size()}, Xxh3(part.bytes)});
  }
  const FileOffset stream_end = layout_.device_state_offset + ByteCount{device_state.size()};
  return envelope_.Close(stream_end, has_checksums() ? std::optional(std::move(table_)) : std::nullopt);
}

void FixedOffsetFile::LayOutAgain(const StreamFrame& frame) {
  FixedOffsetLayout layout = LayOut(envelope_.stream_start(), frame, table_.blocks);
  if (!std::ranges::equal(layout.blocks, layout_.blocks, {}, &MappedRamHeader::pages_offset,
                          &MappedRamHeader::pages_offset)) {
    throw Error(ErrorKind::kFailed, "cannot finish " + file_.path(),
                "the guest's machine type changed while its pages were written");
  }
  layout_ = std::move(layout);
}

}  // namespace vmsave
