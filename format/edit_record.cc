#include "format/edit_record.h"

#include <algorithm>
#include <utility>

#include "format/bytes.h"
#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::string_view kNoteMagic = "VMSEDITN";
constexpr std::string_view kRecordMagic = "VMSEDITR";
constexpr std::uint64_t kRecordAlignment = 4096;  // so that no block of the image is written again
constexpr std::size_t kRecordHeadBytes = kEditMagicBytes + 8;
constexpr std::size_t kHashBytes = 8;

// Magic, length, body, and the hash of all that.
std::vector<std::byte> Encode(std::string_view magic, ByteCount image_length, std::span<const std::byte> body) {
  ByteWriter writer;
  writer.Append(magic);
  writer.AppendLittleEndian(image_length.value());
  writer.Append(body);
  std::vector<std::byte> bytes = writer.Take();
  const std::uint64_t hash = Xxh3(bytes);
  bytes.resize(bytes.size() + kHashBytes);
  PutLittleEndian(std::span(bytes).last(kHashBytes), hash);
  return bytes;
}

// The length; nothing where these are not Encode's bytes.
std::optional<ByteCount> Decode(std::string_view magic, std::span<const std::byte> bytes) {
  if (bytes.size() < kRecordHeadBytes + kHashBytes) return std::nullopt;
  if (!std::ranges::equal(bytes.first(kEditMagicBytes), AsBytes(magic))) return std::nullopt;
  const std::span<const std::byte> hashed = bytes.first(bytes.size() - kHashBytes);
  if (Xxh3(hashed) != GetLittleEndian<std::uint64_t>(bytes.last(kHashBytes))) return std::nullopt;
  return ByteCount{GetLittleEndian<std::uint64_t>(bytes.subspan(kEditMagicBytes))};
}

EditStep Write(FileOffset at, std::span<const std::byte> bytes) {
  return {EditStep::Kind::kWrite, at, {bytes.begin(), bytes.end()}};
}

// The words of the header that the note takes, as they are to be in the end.
EditStep ClearNote(const EditedImage& image) {
  return Write(kEditNoteOffset, image.before_stream.subspan(kEditNoteOffset.value(), kEditNoteBytes));
}

EditStep WriteBeforeStream(const EditedImage& image) {
  EditStep step = Write(FileOffset{0}, image.before_stream);
  if (image.has_note) {
    std::ranges::copy(EncodeEditNote(image.length), std::span(step.bytes).subspan(kEditNoteOffset.value()).begin());
  }
  return step;
}

}  // namespace

std::array<std::byte, kEditNoteBytes> EncodeEditNote(ByteCount image_length) {
  std::array<std::byte, kEditNoteBytes> note{};
  std::ranges::copy(Encode(kNoteMagic, image_length, {}), note.begin());
  return note;
}

std::optional<ByteCount> DecodeEditNote(std::span<const std::byte, kSaveHeaderBytes> header) {
  return Decode(kNoteMagic, header.subspan<kEditNoteOffset.value()>());
}

ByteCount ImageLength(const HeaderExtension& extension) {
  return std::max(extension.stream_end, extension.integrity_offset + extension.integrity_length) - FileOffset{0};
}

FileOffset EditRecordOffset(ByteCount image_length) {
  return FileOffset{RoundUp(image_length.value(), kRecordAlignment)};
}

std::size_t EditRecordBytes(std::size_t before_stream) {
  return kRecordHeadBytes + before_stream + kHashBytes;
}

bool HasEditMagic(std::span<const std::byte> bytes) {
  return bytes.size() >= kEditMagicBytes && std::ranges::equal(bytes.first(kEditMagicBytes), AsBytes(kRecordMagic));
}

std::vector<std::byte> EncodeEditRecord(std::span<const std::byte> before_stream, ByteCount image_length) {
  return Encode(kRecordMagic, image_length, before_stream);
}

std::optional<std::span<const std::byte>> DecodeEditRecord(std::span<const std::byte> record, ByteCount image_length) {
  if (Decode(kRecordMagic, record) != image_length) return std::nullopt;
  return record.subspan(kRecordHeadBytes, record.size() - kRecordHeadBytes - kHashBytes);
}

std::vector<EditStep> PlanEditRecord(const EditedImage& image) {
  std::vector<EditStep> steps;
  if (image.has_note) steps.push_back(Write(kEditNoteOffset, EncodeEditNote(image.length)));
  steps.push_back(Write(EditRecordOffset(image.length), EncodeEditRecord(image.before_stream, image.length)));
  return steps;
}

std::vector<EditStep> PlanEditCompletion(const EditedImage& image) {
  std::vector<EditStep> steps{WriteBeforeStream(image)};
  std::ranges::move(PlanEditWithdrawal(image), std::back_inserter(steps));
  return steps;
}

// First the file's end: without a note, a stream would go on to it.
std::vector<EditStep> PlanEditWithdrawal(const EditedImage& image) {
  std::vector<EditStep> steps{{EditStep::Kind::kTruncate, FileOffset{0} + image.length, {}}};
  if (image.has_note) steps.push_back(ClearNote(image));
  return steps;
}

}  // namespace vmsave
