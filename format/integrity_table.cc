#include "format/integrity_table.h"

#include <fmt/format.h>

#include "format/bytes.h"
#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::string_view kTableMagic = "VMS3HASH";
constexpr std::uint32_t kTableVersion = 1;
constexpr std::uint32_t kAlgorithmXxh3 = 1;
constexpr std::uint64_t kUnknownAddress = ~std::uint64_t{0};

[[noreturn]] void Refuse(std::string_view file, std::string_view why) {
  throw Error(ErrorKind::kDamaged, fmt::format("integrity table of {}", file), why);
}

void AppendBlock(ByteWriter& out, const HashedBlock& block) {
  out.AppendLittleEndian(static_cast<std::uint32_t>(block.name.size()));
  out.Append(block.name);
  out.AppendLittleEndian(block.length.value());
  out.AppendLittleEndian(kPageBytes);
  out.AppendLittleEndian(block.address ? block.address->value() : kUnknownAddress);
  for (const std::uint64_t hash : block.chunk_hashes) out.AppendLittleEndian(hash);
}

HashedBlock TakeBlock(ByteReader& in, std::string_view file) {
  HashedBlock block;
  block.name = AsText(in.Take(in.TakeLittleEndian<std::uint32_t>()));
  block.length = ByteCount{in.TakeLittleEndian<std::uint64_t>()};
  if (in.TakeLittleEndian<std::uint64_t>() != kPageBytes) Refuse(file, "it has pages of an unknown size");
  if (block.length.value() % kPageBytes != 0) Refuse(file, "the length of a block is not a multiple of the page size");
  const auto address = in.TakeLittleEndian<std::uint64_t>();
  if (address != kUnknownAddress) block.address = GuestAddress{address};
  const std::uint64_t chunks = block.length.value() / kChunkBytes + (block.length.value() % kChunkBytes != 0 ? 1 : 0);
  ByteReader hashes(in.Take(CheckedMultiply(chunks, 8)), "integrity table");
  block.chunk_hashes.reserve(chunks);
  while (hashes.left() > 0) block.chunk_hashes.push_back(hashes.TakeLittleEndian<std::uint64_t>());
  return block;
}

void CheckKind(ByteReader& in, std::string_view file) {
  if (AsText(in.Take(kTableMagic.size())) != kTableMagic) Refuse(file, "there is none at its place");
  const auto version = in.TakeLittleEndian<std::uint32_t>();
  const auto algorithm = in.TakeLittleEndian<std::uint32_t>();
  const auto chunk_bytes = in.TakeLittleEndian<std::uint32_t>();
  if (version != kTableVersion || algorithm != kAlgorithmXxh3 || chunk_bytes != kChunkBytes) {
    Refuse(file,
           fmt::format("version {}, algorithm {} or chunk size {} is not known", version, algorithm, chunk_bytes));
  }
}

}  // namespace

std::vector<std::byte> EncodeIntegrityTable(const IntegrityTable& table) {
  ByteWriter out;
  out.Append(kTableMagic);
  out.AppendLittleEndian(kTableVersion);
  out.AppendLittleEndian(kAlgorithmXxh3);
  out.AppendLittleEndian(static_cast<std::uint32_t>(kChunkBytes));
  out.AppendLittleEndian(static_cast<std::uint32_t>(table.ranges.size()));
  out.AppendLittleEndian(static_cast<std::uint32_t>(table.blocks.size()));
  for (const HashedRange& range : table.ranges) {
    out.AppendLittleEndian(range.offset.value());
    out.AppendLittleEndian(range.length.value());
    out.AppendLittleEndian(range.hash);
  }
  for (const HashedBlock& block : table.blocks) AppendBlock(out, block);
  std::vector<std::byte> bytes = out.Take();
  ByteWriter hash;
  hash.AppendLittleEndian(Xxh3(bytes));
  const std::vector<std::byte> hash_bytes = hash.Take();
  bytes.insert(bytes.end(), hash_bytes.begin(), hash_bytes.end());
  return bytes;
}

void CheckTableHead(std::span<const std::byte, kTableHeadBytes> head, std::string_view file) {
  ByteReader in(head, fmt::format("integrity table of {}", file));
  CheckKind(in, file);
}

IntegrityTable DecodeIntegrityTable(std::span<const std::byte> bytes, std::string_view file) {
  if (bytes.size() < kTableHashBytes) Refuse(file, "it ends early");
  const std::span<const std::byte> hashed = bytes.first(bytes.size() - kTableHashBytes);
  ByteReader in(hashed, fmt::format("integrity table of {}", file));
  CheckKind(in, file);
  if (Xxh3(hashed) != GetLittleEndian<std::uint64_t>(bytes.last(kTableHashBytes)))
    Refuse(file, "its own checksum is wrong");
  IntegrityTable table;
  const auto ranges = in.TakeLittleEndian<std::uint32_t>();
  const auto blocks = in.TakeLittleEndian<std::uint32_t>();
  for (std::uint32_t i = 0; i < ranges; ++i) {
    HashedRange range;
    range.offset = FileOffset{in.TakeLittleEndian<std::uint64_t>()};
    range.length = ByteCount{in.TakeLittleEndian<std::uint64_t>()};
    range.hash = in.TakeLittleEndian<std::uint64_t>();
    table.ranges.push_back(range);
  }
  for (std::uint32_t i = 0; i < blocks; ++i) table.blocks.push_back(TakeBlock(in, file));
  if (in.left() != 0) Refuse(file, "bytes are left over behind its last block");
  return table;
}

}  // namespace vmsave
