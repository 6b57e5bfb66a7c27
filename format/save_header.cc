#include "format/save_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/bytes.h"
#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::string_view kCompleteMagic = "LibvirtQemudSave";
constexpr std::string_view kPartialMagic = "LibvirtQemudPart";
constexpr std::uint32_t kExtensionMagic = 0x33534d56;  // "VMS3"
constexpr std::uint32_t kNewestVersion = 3;
constexpr std::uint32_t kNewestSwappedVersion = 2;  // version 3 is little-endian on every host
constexpr std::size_t kFormatOffset = 28;
constexpr std::size_t kExtensionOffset = 36;
constexpr std::size_t kHeaderHashOffset = 72;
constexpr std::uint32_t kKnownIncompatibleFeatures = 0;

[[noreturn]] void Refuse(std::string_view file, std::string_view why, std::string_view advice = "") {
  throw Error(ErrorKind::kDamaged, fmt::format("cannot use {}", file), why, advice);
}

ImageState DecodeMagic(std::span<const std::byte> bytes, std::string_view file) {
  const std::string magic = AsText(bytes.first(kSaveMagicBytes));
  if (magic == kCompleteMagic) return ImageState::kComplete;
  if (magic == kPartialMagic) return ImageState::kPartial;
  Refuse(file, "it is not a save image");
}

// The one in which the version makes sense.
std::endian ByteOrderOf(std::span<const std::byte, kSaveHeaderBytes> bytes) {
  const auto version = GetLittleEndian<std::uint32_t>(bytes.subspan(kSaveMagicBytes));
  const bool swapped = version > kNewestVersion && __builtin_bswap32(version) <= kNewestSwappedVersion;
  return swapped ? std::endian::big : std::endian::little;
}

// Turns little-endian fields behind the magic, all of them u32 up to the extension, into those of `byte_order`, and
// back.
void SwapFields(std::span<std::byte, kSaveHeaderBytes> bytes, std::endian byte_order) {
  if (byte_order == std::endian::little) return;
  for (std::size_t at = kSaveMagicBytes; at < kExtensionOffset; at += 4) std::ranges::reverse(bytes.subspan(at, 4));
}

// `magic` stands where the extension starts.
void CheckExtensionMagic(const SaveHeader& header, std::uint32_t magic, std::string_view file) {
  const bool fixed_offsets = header.format == BodyFormat::kSparse;
  const bool extended = magic == kExtensionMagic;
  if (header.version == 3 && (!extended || !fixed_offsets)) {
    Refuse(file, "it says version 3, but has not version 3's fields and layout");
  }
  // One flipped bit makes version 3 into libvirt's sparse version 2, which has zeros there.
  if (header.version == 2 && extended && fixed_offsets) Refuse(file, "it says version 2, but has version 3's fields");
}

HeaderExtension DecodeExtension(ByteReader& reader, std::string_view file) {
  HeaderExtension extension;
  extension.features_incompatible = reader.TakeLittleEndian<std::uint32_t>();
  extension.features_compatible = reader.TakeLittleEndian<std::uint32_t>();
  extension.stream_end = FileOffset{reader.TakeLittleEndian<std::uint64_t>()};
  extension.integrity_offset = FileOffset{reader.TakeLittleEndian<std::uint64_t>()};
  extension.integrity_length = ByteCount{reader.TakeLittleEndian<std::uint64_t>()};
  extension.header_hash = reader.TakeLittleEndian<std::uint64_t>();
  if (const std::uint32_t unknown = extension.features_incompatible & ~kKnownIncompatibleFeatures; unknown != 0) {
    Refuse(file, fmt::format("it needs features that this vmsave does not know ({:#x})", unknown),
           "use a newer vmsave");
  }
  for (int word = 0; word < 3; ++word) {
    if (reader.TakeLittleEndian<std::uint32_t>() != 0) Refuse(file, "a reserved field of its header is not zero");
  }
  return extension;
}

void EncodeExtension(const HeaderExtension& extension, ByteWriter& writer) {
  writer.AppendLittleEndian(kExtensionMagic);
  writer.AppendLittleEndian(extension.features_incompatible);
  writer.AppendLittleEndian(extension.features_compatible);
  writer.AppendLittleEndian(extension.stream_end.value());
  writer.AppendLittleEndian(extension.integrity_offset.value());
  writer.AppendLittleEndian(extension.integrity_length.value());
  writer.AppendLittleEndian(extension.header_hash);
}

void CheckFields(const SaveHeader& header, std::uint32_t format, std::uint32_t was_running, std::string_view file) {
  if (format > static_cast<std::uint32_t>(BodyFormat::kSparse)) {
    Refuse(file, fmt::format("its body is of unknown format {}", format), "use a newer vmsave");
  }
  if (was_running > 1) Refuse(file, fmt::format("its was_running field is {}, not 0 or 1", was_running));
  if (header.cookie_offset != 0 && header.cookie_offset >= header.data_length) {
    Refuse(file, "its cookie lies outside of the description");
  }
}

// Where the fields end that a version has.
std::size_t FieldsEnd(std::uint32_t version) {
  if (version == 1) return kFormatOffset;
  return version == 2 ? kExtensionOffset : kSaveHeaderBytes;
}

std::vector<std::byte> WithTexts(std::span<const std::byte> before_stream, SaveHeader header,
                                 std::string_view description, std::span<const std::byte> cookie) {
  header.cookie_offset = cookie.empty() ? 0 : static_cast<std::uint32_t>(description.size() + 1);
  ByteWriter writer;
  writer.Append(before_stream.first(kSaveHeaderBytes));
  writer.Append(description);
  writer.AppendZeros(1);
  writer.Append(cookie);
  writer.AppendZeros(before_stream.size() - writer.size());
  std::vector<std::byte> bytes = writer.Take();
  PutSaveHeader(bytes, header);
  return bytes;
}

}  // namespace

std::string_view BodyFormatName(BodyFormat format) {
  constexpr std::string_view kNames[] = {"raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"};
  return kNames[static_cast<std::uint32_t>(format)];
}

bool HasSaveMagic(std::span<const std::byte> bytes) {
  if (bytes.size() < kSaveMagicBytes) return false;
  const std::string magic = AsText(bytes.first(kSaveMagicBytes));
  return magic == kCompleteMagic || magic == kPartialMagic;
}

std::array<std::byte, kSaveMagicBytes> EncodeSaveMagic(ImageState state) {
  std::array<std::byte, kSaveMagicBytes> magic{};
  std::ranges::copy(AsBytes(state == ImageState::kComplete ? kCompleteMagic : kPartialMagic), magic.begin());
  return magic;
}

std::array<std::byte, kSaveHeaderBytes> EncodeSaveHeader(const SaveHeader& header) {
  ByteWriter writer;
  writer.Append(EncodeSaveMagic(header.state));
  writer.AppendLittleEndian(header.version);
  writer.AppendLittleEndian(header.data_length);
  writer.AppendLittleEndian<std::uint32_t>(header.was_running ? 1 : 0);
  writer.AppendLittleEndian(static_cast<std::uint32_t>(header.format));
  writer.AppendLittleEndian(header.cookie_offset);
  if (header.extension) EncodeExtension(*header.extension, writer);
  std::array<std::byte, kSaveHeaderBytes> bytes{};
  std::ranges::copy(writer.Take(), bytes.begin());
  if (header.version <= kNewestSwappedVersion) SwapFields(bytes, header.byte_order);
  return bytes;
}

SaveHeader DecodeSaveHeader(std::span<const std::byte, kSaveHeaderBytes> bytes, std::string_view file) {
  SaveHeader header;
  header.state = DecodeMagic(bytes, file);
  header.byte_order = ByteOrderOf(bytes);
  std::array<std::byte, kSaveHeaderBytes> fields{};
  std::ranges::copy(bytes, fields.begin());
  SwapFields(fields, header.byte_order);
  ByteReader reader(std::span<const std::byte>{fields}.subspan(kSaveMagicBytes), fmt::format("header of {}", file));
  header.version = reader.TakeLittleEndian<std::uint32_t>();
  if (header.version == 0 || header.version > kNewestVersion) {
    Refuse(file,
           fmt::format("it is a save image of version {}; this vmsave reads 1 to {}", header.version, kNewestVersion),
           "use a newer vmsave");
  }
  header.data_length = reader.TakeLittleEndian<std::uint32_t>();
  const auto was_running = reader.TakeLittleEndian<std::uint32_t>();
  header.was_running = was_running != 0;
  const auto format = reader.TakeLittleEndian<std::uint32_t>();
  header.cookie_offset = reader.TakeLittleEndian<std::uint32_t>();
  // Version 1 had no format and no cookie: whatever stands there means nothing.
  if (header.version == 1) {
    header.cookie_offset = 0;
    return header;
  }
  CheckFields(header, format, was_running, file);
  header.format = static_cast<BodyFormat>(format);
  const auto extension_magic = reader.TakeLittleEndian<std::uint32_t>();
  CheckExtensionMagic(header, extension_magic, file);
  if (header.version == 3) header.extension = DecodeExtension(reader, file);
  return header;
}

std::uint64_t HashBeforeStream(std::span<const std::byte> header_and_description) {
  std::vector<std::byte> bytes(header_and_description.begin(), header_and_description.end());
  std::ranges::copy(EncodeSaveMagic(ImageState::kComplete), bytes.begin());
  PutLittleEndian<std::uint64_t>(std::span(bytes).subspan(kHeaderHashOffset), 0);
  return Xxh3(bytes);
}

bool FitsHeaderHash(std::span<const std::byte> before_stream, const SaveHeader& header) {
  return !header.extension || HashBeforeStream(before_stream) == header.extension->header_hash;
}

void PutSaveHeader(std::span<std::byte> before_stream, const SaveHeader& header) {
  const auto bytes = EncodeSaveHeader(header);
  std::ranges::copy(std::span(bytes).first(FieldsEnd(header.version)), before_stream.begin());
  if (!header.extension) return;
  PutLittleEndian(before_stream.subspan(kHeaderHashOffset), HashBeforeStream(before_stream));
}

std::vector<std::byte> EncodeDescription(std::string_view description) {
  ByteWriter writer;
  writer.Append(description);
  writer.AppendZeros(1 + kDescriptionPadding);
  return writer.Take();
}

std::string DecodeDescription(std::span<const std::byte> data, std::string_view file) {
  const auto end = std::ranges::find(data, std::byte{0});
  if (end == data.end()) Refuse(file, "its description has no end");
  return AsText(data.first(static_cast<std::size_t>(end - data.begin())));
}

std::span<const std::byte> FindCookie(std::span<const std::byte> before_stream, const SaveHeader& header) {
  if (header.cookie_offset == 0) return {};
  const std::span<const std::byte> data = before_stream.subspan(kSaveHeaderBytes + header.cookie_offset);
  const auto nul = std::ranges::find(data, std::byte{0});
  return nul == data.end() ? data : data.first(static_cast<std::size_t>(nul - data.begin()) + 1);
}

std::size_t DescriptionRoom(std::span<const std::byte> before_stream, const SaveHeader& header) {
  const std::size_t taken = 1 + FindCookie(before_stream, header).size();
  return header.data_length - std::min<std::size_t>(header.data_length, taken);
}

std::vector<std::byte> WithDescription(std::span<const std::byte> before_stream, const SaveHeader& header,
                                       std::string_view description) {
  return WithTexts(before_stream, header, description, FindCookie(before_stream, header));
}

std::vector<std::byte> WithCookie(std::span<const std::byte> before_stream, const SaveHeader& header,
                                  std::span<const std::byte> cookie) {
  const std::string description = DecodeDescription(before_stream.subspan(kSaveHeaderBytes), "the image");
  return WithTexts(before_stream, header, description, cookie);
}

}  // namespace vmsave
