// Images of every kind, all of one guest.
#pragma once

#include <string>

#include "format/mapped_ram.h"
#include "reader/image.h"
#include "tests/format/byte_strings.h"
#include "tests/writer/image_files.h"
#include "tests/writer/small_guest.h"
#include "writer/compressor.h"

namespace vmsave {

// Makes libvirt's sparse image of a version 3 image; whatever stands behind the stream is cut off.
inline void TurnIntoLibvirtSparse(const std::string& path) {
  const FileOffset stream_end = Image(path).stream_end();
  const Bytes version_2 = Hex("02000000");
  Overwrite(path, FileOffset{16}, version_2);
  Overwrite(path, FileOffset{36}, Bytes(kSaveHeaderBytes - 36));
  Truncate(path, stream_end.value());
}

// Cuts header and description off a version 2 image.
inline void TurnIntoBareStream(const std::string& path) {
  const Bytes image = ReadWholeFile(path);
  WriteWholeFile(path, std::span(image).subspan(Image(path).stream_start().value()));
}

// What QEMU writes by itself for `migrate file:` with mapped-ram.
inline void WriteBareMappedRam(const std::string& path, const SmallGuest& guest) {
  const GuestImage& image = guest.image();
  std::vector<BlockShape> shapes;
  for (const RamBlock& block : image.blocks) shapes.push_back({block.name, block.length()});
  const FixedOffsetLayout layout = LayOutFixedOffsets(FileOffset{0}, image.frame, shapes);
  Bytes file;
  for (const PlacedBytes& part : layout.stream_parts) Place(file, part.offset.value(), part.bytes);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    PageBitmap present(image.blocks[i].pages());
    for (std::uint64_t page = 0; page < present.pages(); ++page) {
      if (guest.IsPresent(i, page)) present.Set(page);
    }
    Place(file, layout.blocks[i].bitmap_offset.value(), present.Encode());
    Place(file, layout.blocks[i].pages_offset.value(), image.blocks[i].memory);
  }
  Place(file, layout.device_state_offset.value(), image.device_state);
  WriteWholeFile(path, file);
}

// As the compressor's program makes it of a version 2 image.
inline void Compress(const std::string& path, BodyFormat format) {
  const Bytes image = ReadWholeFile(path);
  const std::uint64_t stream_start = Image(path).stream_start().value();
  Bytes compressed(image.begin(), image.begin() + static_cast<std::ptrdiff_t>(stream_start));
  PutLittleEndian(std::span(compressed).subspan(28), static_cast<std::uint32_t>(format));
  const auto compressor = MakeCompressor(format, 2, [&](std::span<const std::byte> bytes) {
    compressed.insert(compressed.end(), bytes.begin(), bytes.end());
  });
  compressor->Write(std::span(image).subspan(stream_start));
  compressor->Finish();
  WriteWholeFile(path, compressed);
}

enum class Copy {
  kVersion2,
  kVersion3,
  kVersion3WithoutChecksums,
  kLibvirtSparse,
  kBareStream,
  kBareMappedRam,
  kGzip,
  kBzip2,
  kXz,
  kLzop,
  kZstd,
};

// Of the compressed ones, which differ in nothing but their compressor, one.
inline constexpr Copy kAllCopies[] = {Copy::kVersion2,      Copy::kVersion3,   Copy::kVersion3WithoutChecksums,
                                      Copy::kLibvirtSparse, Copy::kBareStream, Copy::kBareMappedRam,
                                      Copy::kZstd};
inline constexpr Copy kCompressedCopies[] = {Copy::kGzip, Copy::kBzip2, Copy::kXz, Copy::kLzop, Copy::kZstd};

inline bool IsCompressed(Copy copy) {
  return copy >= Copy::kGzip;
}

inline std::string CopyName(Copy copy) {
  constexpr const char* kNames[] = {"Version2",      "Version3",   "Version3WithoutChecksums",
                                    "LibvirtSparse", "BareStream", "BareMappedRam",
                                    "Gzip",          "Bzip2",      "Xz",
                                    "Lzop",          "Zstd"};
  return kNames[static_cast<int>(copy)];
}

inline bool IsSequential(Copy copy) {
  return copy == Copy::kVersion2 || copy == Copy::kBareStream || IsCompressed(copy);
}

inline BodyFormat BodyFormatOf(Copy copy) {
  if (!IsCompressed(copy)) return IsSequential(copy) ? BodyFormat::kRaw : BodyFormat::kSparse;
  return static_cast<BodyFormat>(static_cast<int>(BodyFormat::kGzip) + static_cast<int>(copy) -
                                 static_cast<int>(Copy::kGzip));
}

inline void WriteCopy(const std::string& path, const SmallGuest& guest, Copy copy) {
  if (copy == Copy::kBareMappedRam) return WriteBareMappedRam(path, guest);
  WriteOptions options;
  options.checksums = copy != Copy::kVersion3WithoutChecksums;
  SaveImage(path, guest.image(), IsSequential(copy) ? 2 : 3, options);
  if (copy == Copy::kLibvirtSparse) TurnIntoLibvirtSparse(path);
  if (copy == Copy::kBareStream) TurnIntoBareStream(path);
  if (IsCompressed(copy)) Compress(path, BodyFormatOf(copy));
}

}  // namespace vmsave
