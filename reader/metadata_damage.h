// What the checksums of a version 3 image tell of everything but its pages.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "format/integrity_table.h"
#include "format/save_header.h"
#include "io/file_descriptor.h"

namespace vmsave {

// In words that name its place in the file; nothing where all is right.
using Damage = std::optional<std::string>;

// Why a checksum does not fit.
inline constexpr std::string_view kWrongChecksum = "wrong checksum";

// Of bytes of the file, read piece by piece.
std::uint64_t HashOf(const FileDescriptor& file, FileOffset offset, ByteCount length);

// Of the bytes [0, S) of the image with that header. Nothing where the header has no checksum.
Damage FindHeaderDamage(const SaveHeader& header, std::span<const std::byte> before_stream);

// Of block list, bitmaps and device state. Throws Error{kDamaged} where they do not lie in the file.
Damage FindRangeDamage(const IntegrityTable& table, const FileDescriptor& file);

}  // namespace vmsave
