// Images of every kind whose description can be changed, all of one guest.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>

#include "convert/convert.h"
#include "convert/description_edit.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"

namespace vmsave {

enum class Kind { kVersion1, kVersion2, kBigEndian, kCompressed, kLibvirtSparse, kVersion3, kVersion3WithoutChecksums };

inline constexpr Kind kAllKinds[] = {Kind::kVersion1,
                                     Kind::kVersion2,
                                     Kind::kBigEndian,
                                     Kind::kCompressed,
                                     Kind::kLibvirtSparse,
                                     Kind::kVersion3,
                                     Kind::kVersion3WithoutChecksums};

inline std::string KindName(Kind kind) {
  constexpr const char* kNames[] = {
      "Version1", "Version2", "BigEndian", "Compressed", "LibvirtSparse", "Version3", "Version3WithoutChecksums"};
  return kNames[static_cast<int>(kind)];
}

inline std::ostream& operator<<(std::ostream& out, Kind kind) {
  return out << KindName(kind);
}

inline Copy CopyOf(Kind kind) {
  switch (kind) {
    case Kind::kLibvirtSparse:
      return Copy::kLibvirtSparse;
    case Kind::kVersion3:
      return Copy::kVersion3;
    case Kind::kVersion3WithoutChecksums:
      return Copy::kVersion3WithoutChecksums;
    default:
      return Copy::kVersion2;
  }
}

// The five integers of the header in the other order.
inline void SwapHeader(const std::string& path) {
  Bytes header(kSaveHeaderBytes);
  ReadAt(OpenFile(path, O_RDONLY), header, FileOffset{0});
  for (std::ptrdiff_t at = 16; at < 36; at += 4) std::reverse(header.begin() + at, header.begin() + at + 4);
  Overwrite(path, FileOffset{0}, header);
}

// The version 2 image at `path`, compressed.
inline void Compress(const std::string& path) {
  ConvertOptions options;
  options.to = TargetKind::kVersion2;
  options.compression = BodyFormat::kZstd;
  const Image source(path);
  NewFile target(path, Replace::kYes, CacheUse::kPageCache);
  Progress progress;
  Convert(source, target, options, progress, Interrupt());
  target.Publish();
}

inline void WriteKind(const std::string& path, const SmallGuest& guest, Kind kind) {
  WriteCopy(path, guest, CopyOf(kind));
  if (kind == Kind::kVersion1) Overwrite(path, FileOffset{16}, Hex("01000000"));
  if (kind == Kind::kCompressed) Compress(path);
  if (kind == Kind::kBigEndian) SwapHeader(path);
}

// Gives a version 2 image a cookie, as libvirt does: behind the description's NUL.
inline void AddCookie(const std::string& path, std::string_view cookie) {
  const std::uint32_t at = static_cast<std::uint32_t>(Image(path).description().size()) + 1;
  Bytes field(4);
  PutLittleEndian(std::span(field), at);
  Overwrite(path, FileOffset{32}, field);
  Overwrite(path, FileOffset{kSaveHeaderBytes + at}, ToBytes(cookie));
}

// A description with a text of about that length.
inline std::string DescriptionOf(std::size_t length, char letter) {
  return "<domain type='kvm'><name>small</name><title>" + std::string(length, letter) + "</title></domain>\n";
}

inline const SmallGuest& SmallestGuest() {
  static const SmallGuest guest({{"pc.ram", 20}, {"pc.bios", 1, SmallGuest::Place::kPrivate}});
  return guest;
}

}  // namespace vmsave
