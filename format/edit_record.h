// What makes a change of an image's bytes before the stream, in place, survive a crash at any moment (FORMAT.md, "Edit
// record"): the new bytes stand behind the image before the first of the old ones is written over.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "format/save_header.h"

namespace vmsave {

// Of versions 1 and 2, whose header does not tell how long the image is: while it is edited, its last words do.
inline constexpr std::size_t kEditNoteBytes = 24;
inline constexpr FileOffset kEditNoteOffset{kSaveHeaderBytes - kEditNoteBytes};

std::array<std::byte, kEditNoteBytes> EncodeEditNote(ByteCount image_length);

// The image's length; nothing where the words are not a note.
std::optional<ByteCount> DecodeEditNote(std::span<const std::byte, kSaveHeaderBytes> header);

// The length of a version 3 image, which follows from its header: to the end of its integrity table, or of its stream.
// Throws Error{kDamaged} where there is no such length.
ByteCount ImageLength(const HeaderExtension& extension);

inline constexpr std::size_t kEditMagicBytes = 8;

// Where the record of an image stands, and how long it is with `before_stream` bytes in it.
FileOffset EditRecordOffset(ByteCount image_length);
std::size_t EditRecordBytes(std::size_t before_stream);

// Whether `bytes`, the first of a record, begin with its magic.
bool HasEditMagic(std::span<const std::byte> bytes);

std::vector<std::byte> EncodeEditRecord(std::span<const std::byte> before_stream, ByteCount image_length);

// The bytes before the stream in it; nothing where it is not whole, or another image's.
std::optional<std::span<const std::byte>> DecodeEditRecord(std::span<const std::byte> record, ByteCount image_length);

// Something to be done to the file, and synced before the next.
struct EditStep {
  enum class Kind { kWrite, kTruncate };

  Kind kind = Kind::kWrite;
  FileOffset at;                 // where to write, or where the file is to end
  std::vector<std::byte> bytes;  // of kWrite
};

// The image as it is to be afterwards.
struct EditedImage {
  std::span<const std::byte> before_stream;
  ByteCount length;
  bool has_note = false;  // versions 1 and 2

  static EditedImage Of(const SaveHeader& header, std::span<const std::byte> before_stream, ByteCount length) {
    return {before_stream, length, header.version != 3};
  }
};

// Puts the record behind the image. Before all of it is there, the image is as it was; from then on it is the new one.
std::vector<EditStep> PlanEditRecord(const EditedImage& image);

// Writes what a record says in its place, and takes the record away.
std::vector<EditStep> PlanEditCompletion(const EditedImage& image);

// Takes away what there may be of a record that never became whole. `image` is as it was.
std::vector<EditStep> PlanEditWithdrawal(const EditedImage& image);

}  // namespace vmsave
