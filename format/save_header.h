// The 92-byte header of a save image: libvirt's, with vmsave's extension in its unused words (FORMAT.md, "Save
// header").
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/units.h"

namespace vmsave {

inline constexpr std::size_t kSaveHeaderBytes = 92;
inline constexpr std::size_t kSaveMagicBytes = 16;

// What stands behind the description: the values of the header's `format` field.
enum class BodyFormat : std::uint32_t { kRaw = 0, kGzip = 1, kBzip2 = 2, kXz = 3, kLzop = 4, kZstd = 5, kSparse = 6 };

// "raw", "gzip", ..., "sparse".
std::string_view BodyFormatName(BodyFormat format);

enum class ImageState { kPartial, kComplete };

// Version 3's own fields.
struct HeaderExtension {
  std::uint32_t features_incompatible = 0;
  std::uint32_t features_compatible = 0;
  FileOffset stream_end;
  FileOffset integrity_offset;
  ByteCount integrity_length;  // 0: saved without checksums
  std::uint64_t header_hash = 0;
};

struct SaveHeader {
  ImageState state = ImageState::kPartial;
  std::uint32_t version = 2;
  std::uint32_t data_length = 0;  // of description, cookie and padding together
  bool was_running = false;
  BodyFormat format = BodyFormat::kRaw;
  std::uint32_t cookie_offset = 0;  // from the description's start; 0 = no cookie
  // Of versions 1 and 2: that of the host that wrote it. Version 3 is little-endian whatever this says.
  std::endian byte_order = std::endian::little;
  std::optional<HeaderExtension> extension;

  FileOffset stream_start() const { return FileOffset{kSaveHeaderBytes} + ByteCount{data_length}; }
};

// Whether `bytes`, the first of a file, begin with either save magic.
bool HasSaveMagic(std::span<const std::byte> bytes);

std::array<std::byte, kSaveHeaderBytes> EncodeSaveHeader(const SaveHeader& header);

// The 16 bytes that make an image complete.
std::array<std::byte, kSaveMagicBytes> EncodeSaveMagic(ImageState state);

// Decodes and checks magic, version (1..3), format, the extension's magic, incompatible features and reserved words; a
// partial image is decoded too: the caller refuses it. A version 2 header with version 3's layout and extension is
// refused as a damaged version 3. A header in the other byte order (from a big-endian host) is swapped, and encoded in
// that order again. Throws Error{kDamaged} naming `file`.
SaveHeader DecodeSaveHeader(std::span<const std::byte, kSaveHeaderBytes> bytes, std::string_view file);

// XXH3-64 of everything before the stream, as header_hash wants it: the field zero, the magic as when complete.
// REQUIRES: at least kSaveHeaderBytes.
std::uint64_t HashBeforeStream(std::span<const std::byte> header_and_description);

// Whether `before_stream`, the bytes [0, S) of an image with that header, are those that its header_hash is of. True
// for a version that has none. REQUIRES: at least kSaveHeaderBytes.
bool FitsHeaderHash(std::span<const std::byte> before_stream, const SaveHeader& header);

// Changes the header in front of `before_stream`, the bytes [0, S) of an image: the fields that its version has,
// version 3 with header_hash of the bytes as they are then. Unused words stay as they are. REQUIRES: at least
// kSaveHeaderBytes.
void PutSaveHeader(std::span<std::byte> before_stream, const SaveHeader& header);

// A reader takes no more than this of description, cookie and padding together; a writer of the description alone half.
inline constexpr std::uint32_t kMaxDescriptionBytes = 64 << 20;

// Behind a description: lets the text be edited in place to something longer, and has room for a cookie.
inline constexpr std::size_t kDescriptionPadding = std::size_t{64} * 1024;

// Description, NUL, and padding: what follows the header.
std::vector<std::byte> EncodeDescription(std::string_view description);

// The text up to its NUL. Throws Error{kDamaged} where there is none.
std::string DecodeDescription(std::span<const std::byte> data, std::string_view file);

// The length of the longest description that fits into `before_stream`, the bytes [0, S) of an image with that header,
// beside its cookie.
std::size_t DescriptionRoom(std::span<const std::byte> before_stream, const SaveHeader& header);

// With its NUL; empty where there is none. One that nothing ends goes to the end of the data, as in libvirt.
std::span<const std::byte> FindCookie(std::span<const std::byte> before_stream, const SaveHeader& header);

// The bytes [0, S) of the same image with another description: S stays, the cookie moves, header_hash fits. REQUIRES:
// it is no longer than DescriptionRoom, and has no NUL.
std::vector<std::byte> WithDescription(std::span<const std::byte> before_stream, const SaveHeader& header,
                                       std::string_view description);

// The same with another cookie, which ends with its NUL. REQUIRES: description, its NUL and cookie fit into
// header.data_length.
std::vector<std::byte> WithCookie(std::span<const std::byte> before_stream, const SaveHeader& header,
                                  std::span<const std::byte> cookie);

}  // namespace vmsave
