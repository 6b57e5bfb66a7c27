#include "reader/image_head.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "reader/metadata_damage.h"

namespace vmsave {
namespace {

constexpr int kAttempts = 10;

[[noreturn]] void Refuse(const FileDescriptor& file, std::string_view why) {
  throw Error(ErrorKind::kDamaged, fmt::format("cannot use {}", file.name()), why);
}

SaveHeader DecodeHeader(std::span<const std::byte> bytes, const FileDescriptor& file) {
  const SaveHeader header = DecodeSaveHeader(bytes.first<kSaveHeaderBytes>(), file.name());
  if (header.state == ImageState::kPartial) Refuse(file, "it is incomplete: the save that wrote it did not finish");
  return header;
}

std::optional<std::array<std::byte, kSaveHeaderBytes>> ReadHeader(const FileDescriptor& file) {
  std::array<std::byte, kSaveHeaderBytes> bytes{};
  const std::size_t got = ReadUpTo(file, bytes, FileOffset{0});
  if (!HasSaveMagic(std::span(bytes).first(got))) return std::nullopt;
  if (got < bytes.size()) Refuse(file, "it ends within its header");
  return bytes;
}

std::vector<std::byte> ReadBeforeStream(const SaveHeader& header, const FileDescriptor& file) {
  std::vector<std::byte> bytes((header.stream_start() - FileOffset{0}).value());
  ReadAt(file, bytes, FileOffset{0});
  return bytes;
}

// A length that the header tells may be wrong itself.
[[noreturn]] void RefuseTruncated(const ImageHead& head, ByteCount file_length, const FileDescriptor& file) {
  const bool has_all_before_stream =
      head.header.data_length <= kMaxDescriptionBytes && head.header.stream_start() <= FileOffset{file_length.value()};
  const Damage damage =
      has_all_before_stream ? FindHeaderDamage(head.header, ReadBeforeStream(head.header, file)) : std::nullopt;
  Refuse(file, fmt::format("it is truncated: it has {} bytes of {}{}", file_length.value(), head.image_length.value(),
                           damage ? "; " + *damage : ""));
}

void CheckLength(const ImageHead& head, ByteCount file_length, const FileDescriptor& file) {
  if (head.image_length > file_length) RefuseTruncated(head, file_length, file);
  if (head.header.data_length > kMaxDescriptionBytes) Refuse(file, "its description is too long");
  if (head.header.stream_start() > FileOffset{head.image_length.value()})
    Refuse(file, "it ends within its description");
}

bool HasEditRecord(const FileDescriptor& file, const ImageHead& head) {
  std::vector<std::byte> magic(kEditMagicBytes);
  return ReadUpTo(file, magic, EditRecordOffset(head.image_length)) == magic.size() && HasEditMagic(magic);
}

// The bytes before the stream in the image's edit record; nothing where that is not whole.
std::optional<std::vector<std::byte>> ReadEditRecord(const FileDescriptor& file, const ImageHead& head) {
  const FileOffset at = EditRecordOffset(head.image_length);
  std::vector<std::byte> record(EditRecordBytes((head.header.stream_start() - FileOffset{0}).value()));
  record.resize(ReadUpTo(file, record, at));
  const auto bytes = DecodeEditRecord(record, head.image_length);
  if (!bytes) return std::nullopt;
  return std::vector<std::byte>(bytes->begin(), bytes->end());
}

// A record replaces neither the stream nor where it starts and ends, and is of an image that is not being edited.
void TakeRecord(std::vector<std::byte> before_stream, ImageHead& head, const FileDescriptor& file) {
  const SaveHeader header = DecodeHeader(before_stream, file);
  const bool same_length = !header.extension || ImageLength(*header.extension) == head.image_length;
  const bool has_note =
      !header.extension && DecodeEditNote(std::span(before_stream).first<kSaveHeaderBytes>()).has_value();
  if (has_note || header.version != head.header.version || header.format != head.header.format ||
      header.data_length != head.header.data_length || !same_length) {
    Refuse(file, "the record of an interrupted edit behind it is of another image");
  }
  head.header = header;
  head.before_stream = std::move(before_stream);
  head.edit = EditTrace::kRecord;
}

void LeaveNoteOut(ImageHead& head) {
  head.edit = EditTrace::kIncomplete;
  std::ranges::fill(std::span(head.before_stream).subspan(kEditNoteOffset.value(), kEditNoteBytes), std::byte{0});
}

std::optional<ImageHead> ReadOnce(const FileDescriptor& file) {
  const auto bytes = ReadHeader(file);
  if (!bytes) return std::nullopt;
  ImageHead head;
  head.header = DecodeHeader(*bytes, file);
  const ByteCount file_length = FileLength(file);
  const std::optional<ByteCount> known_length =
      head.header.extension ? ImageLength(*head.header.extension) : DecodeEditNote(*bytes);
  head.image_length = known_length.value_or(file_length);
  CheckLength(head, file_length, file);
  if (known_length && HasEditRecord(file, head)) {
    if (auto recorded = ReadEditRecord(file, head)) {
      TakeRecord(std::move(*recorded), head, file);
      return head;
    }
    head.edit = EditTrace::kIncomplete;
  }
  head.before_stream.assign(bytes->begin(), bytes->end());
  head.before_stream.resize((head.header.stream_start() - FileOffset{0}).value());
  ReadAt(file, std::span(head.before_stream).subspan(kSaveHeaderBytes), FileOffset{kSaveHeaderBytes});
  if (known_length && !head.header.extension) LeaveNoteOut(head);
  return head;
}

struct stat StatusOf(const FileDescriptor& file) {
  struct stat status {};
  if (::fstat(file.number(), &status) != 0)
    throw Error::FromErrno(fmt::format("cannot look at {}", file.name()), errno);
  return status;
}

bool IsSame(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

FileDescriptor OpenImageFile(const std::string& path, int flags) {
  // O_NONBLOCK: opening a fifo must not wait for its writer.
  FileDescriptor file = OpenFile(path, flags | O_NONBLOCK);
  if (!S_ISREG(StatusOf(file).st_mode)) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot read {}", path), "it is not a regular file");
  }
  return file;
}

// Beside an edit, the pieces can be of different moments: then the file has changed, and they are read again.
std::optional<ImageHead> ReadImageHead(const FileDescriptor& file) {
  for (int attempt = 1; attempt < kAttempts; ++attempt) {
    const struct stat before = StatusOf(file);
    try {
      std::optional<ImageHead> head = ReadOnce(file);
      if (IsSame(before, StatusOf(file))) return head;
    } catch (const Error&) {
      if (IsSame(before, StatusOf(file))) throw;
    }
  }
  return ReadOnce(file);
}

}  // namespace vmsave
