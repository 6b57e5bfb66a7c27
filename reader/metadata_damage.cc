#include "reader/metadata_damage.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kPieceBytes = 1 << 20;

void RequireInFile(const HashedRange& range, const FileDescriptor& file) {
  if (range.offset + range.length <= FileOffset{FileLength(file).value()}) return;
  throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", file.name()),
              "a range in its integrity table lies behind its end", "restore from another copy");
}

}  // namespace

std::uint64_t HashOf(const FileDescriptor& file, FileOffset offset, ByteCount length) {
  Xxh3Stream hash;
  std::vector<std::byte> piece(std::min(length.value(), kPieceBytes));
  for (std::uint64_t done = 0; done < length.value(); done += piece.size()) {
    piece.resize(std::min(length.value() - done, kPieceBytes));
    ReadAt(file, piece, offset + ByteCount{done});
    hash.Update(piece);
  }
  return hash.Finish();
}

Damage FindHeaderDamage(const SaveHeader& header, std::span<const std::byte> before_stream) {
  if (FitsHeaderHash(before_stream, header)) return std::nullopt;
  return fmt::format("header or description (bytes 0-{} of the file): {}", before_stream.size() - 1, kWrongChecksum);
}

Damage FindRangeDamage(const IntegrityTable& table, const FileDescriptor& file) {
  for (const HashedRange& range : table.ranges) {
    RequireInFile(range, file);
    if (HashOf(file, range.offset, range.length) == range.hash) continue;
    return fmt::format("block list, page bitmap or device state (bytes {}-{} of the file): {}", range.offset.value(),
                       (range.offset + range.length).value() - 1, kWrongChecksum);
  }
  return std::nullopt;
}

}  // namespace vmsave
