#include "reader/metadata_damage.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kPieceBytes = 1 << 20;

std::uint64_t HashOf(const HashedRange& range, const FileDescriptor& file) {
  if (range.offset + range.length > FileOffset{FileLength(file).value()}) {
    throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", file.name()),
                "a range in its integrity table lies behind its end", "restore from another copy");
  }
  Xxh3Stream hash;
  std::vector<std::byte> piece(std::min(range.length.value(), kPieceBytes));
  for (std::uint64_t done = 0; done < range.length.value(); done += piece.size()) {
    piece.resize(std::min(range.length.value() - done, kPieceBytes));
    ReadAt(file, piece, range.offset + ByteCount{done});
    hash.Update(piece);
  }
  return hash.Finish();
}

}  // namespace

Damage FindHeaderDamage(const SaveHeader& header, std::span<const std::byte> before_stream) {
  if (FitsHeaderHash(before_stream, header)) return std::nullopt;
  return fmt::format("header or description (bytes 0-{} of the file): {}", before_stream.size() - 1, kWrongChecksum);
}

Damage FindRangeDamage(const IntegrityTable& table, const FileDescriptor& file) {
  for (const HashedRange& range : table.ranges) {
    if (HashOf(range, file) == range.hash) continue;
    return fmt::format("block list, page bitmap or device state (bytes {}-{} of the file): {}", range.offset.value(),
                       (range.offset + range.length).value() - 1, kWrongChecksum);
  }
  return std::nullopt;
}

}  // namespace vmsave
