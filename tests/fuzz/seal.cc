#include "tests/fuzz/seal.h"

#include <algorithm>
#include <optional>

#include "format/bytes.h"
#include "format/edit_record.h"
#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::size_t kHashBytes = 8;
constexpr std::size_t kTableHeadBytes = 28;
constexpr std::size_t kRangeCountOffset = 20;
constexpr std::size_t kRangeBytes = 24;

// Nothing where it does not lie in the image.
std::span<std::byte> Part(std::span<std::byte> image, std::uint64_t offset, std::uint64_t length) {
  if (offset > image.size() || length > image.size() - offset) return {};
  return image.subspan(offset, length);
}

// The last 8 bytes become the hash of those before.
void SealEnd(std::span<std::byte> part) {
  if (part.size() < kHashBytes) return;
  PutLittleEndian(part.last(kHashBytes), Xxh3(part.first(part.size() - kHashBytes)));
}

std::optional<SaveHeader> Header(std::span<const std::byte> bytes) {
  try {
    if (bytes.size() >= kSaveHeaderBytes) return DecodeSaveHeader(bytes.first<kSaveHeaderBytes>(), "image");
  } catch (const Error&) {
  }
  return std::nullopt;
}

void SealBeforeStream(std::span<std::byte> image) {
  const auto header = Header(image);
  if (!header || !header->extension) return;
  const auto before_stream = Part(image, 0, (header->stream_start() - FileOffset{0}).value());
  if (!before_stream.empty()) PutSaveHeader(before_stream, *header);
}

void SealRecord(std::span<std::byte> image, const SaveHeader& header, ByteCount length) {
  const std::uint64_t before_stream = (header.stream_start() - FileOffset{0}).value();
  const auto record =
      Part(image, RoundUp(length.value() & ~(std::uint64_t{1} << 63), 4096), EditRecordBytes(before_stream));
  if (!HasEditMagic(record)) return;
  SealBeforeStream(record.subspan(kEditMagicBytes + 8, before_stream));
  SealEnd(record);
}

void SealTable(std::span<std::byte> image, const HeaderExtension& extension) {
  const auto table = Part(image, extension.integrity_offset.value(), extension.integrity_length.value());
  if (table.size() < kTableHeadBytes + kHashBytes) return;
  const auto ranges = GetLittleEndian<std::uint32_t>(table.subspan(kRangeCountOffset));
  const std::size_t room = (table.size() - kTableHeadBytes) / kRangeBytes;
  for (std::size_t i = 0; i < std::min<std::size_t>(ranges, room); ++i) {
    const auto range = table.subspan(kTableHeadBytes + i * kRangeBytes, kRangeBytes);
    const auto covered =
        Part(image, GetLittleEndian<std::uint64_t>(range), GetLittleEndian<std::uint64_t>(range.subspan(8)));
    if (!covered.empty()) PutLittleEndian(range.subspan(16), Xxh3(covered));
  }
  SealEnd(table);
}

}  // namespace

void SealImage(std::span<std::byte> image) {
  const auto header = Header(image);
  if (!header) return;
  if (header->extension) {
    SealTable(image, *header->extension);
    SealBeforeStream(image);
    try {
      SealRecord(image, *header, ImageLength(*header->extension));
    } catch (const Error&) {  // it has no such length
    }
    return;
  }
  const auto note = image.subspan(kEditNoteOffset.value(), kEditNoteBytes);
  SealEnd(note);
  if (const auto length = DecodeEditNote(image.first<kSaveHeaderBytes>())) SealRecord(image, *header, *length);
}

}  // namespace vmsave
