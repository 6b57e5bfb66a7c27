#include "format/working_set.h"

#include "format/bytes.h"
#include "format/page_hash.h"

namespace vmsave {
namespace {

constexpr std::string_view kMagic = "VMSAVEWS";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeadBytes = kWorkingSetHeadLength.value();
constexpr std::size_t kRunBytes = 16;
constexpr std::size_t kHashBytes = 8;

bool HasMagic(std::span<const std::byte> bytes) {
  return AsText(bytes.first(kMagic.size())) == kMagic;
}

bool HasKnownVersion(std::span<const std::byte> bytes) {
  return GetLittleEndian<std::uint32_t>(bytes.subspan(kMagic.size())) == kVersion;
}

[[noreturn]] void Refuse(std::string_view file, std::string_view why) {
  throw Error(ErrorKind::kDamaged, file, why);
}

}  // namespace

std::vector<std::byte> EncodeWorkingSet(const WorkingSet& set) {
  ByteWriter out;
  out.Append(kMagic);
  out.AppendLittleEndian(kVersion);
  out.AppendLittleEndian(static_cast<std::uint32_t>(set.runs.size()));
  out.AppendLittleEndian(set.image);
  for (const ChunkRun& run : set.runs) {
    out.AppendLittleEndian(run.block);
    out.AppendLittleEndian(run.count);
    out.AppendLittleEndian(run.first);
  }
  std::vector<std::byte> bytes = out.Take();
  const std::uint64_t hash = Xxh3(bytes);
  bytes.resize(bytes.size() + kHashBytes);
  PutLittleEndian(std::span(bytes).last(kHashBytes), hash);
  return bytes;
}

bool IsWorkingSetHead(std::span<const std::byte> bytes) {
  return bytes.size() >= kHeadBytes && HasMagic(bytes) && HasKnownVersion(bytes);
}

WorkingSet DecodeWorkingSet(std::span<const std::byte> bytes, std::string_view file) {
  if (bytes.size() < kHeadBytes + kHashBytes || !HasMagic(bytes)) Refuse(file, "it is no working set");
  if (!HasKnownVersion(bytes)) Refuse(file, "it is a working set of an unknown version");
  ByteReader in(bytes.subspan(kMagic.size() + sizeof(kVersion)), file);
  const auto count = in.TakeLittleEndian<std::uint32_t>();
  if (count > kMaxChunkRuns || bytes.size() != kHeadBytes + count * kRunBytes + kHashBytes) {
    Refuse(file, "it is a working set of another length than it says");
  }
  if (Xxh3(bytes.first(bytes.size() - kHashBytes)) != GetLittleEndian<std::uint64_t>(bytes.last(kHashBytes))) {
    Refuse(file, "its checksum is wrong");
  }
  WorkingSet set{in.TakeLittleEndian<std::uint64_t>(), {}};
  for (std::uint32_t i = 0; i < count; ++i) {
    ChunkRun run{};
    run.block = in.TakeLittleEndian<std::uint32_t>();
    run.count = in.TakeLittleEndian<std::uint32_t>();
    run.first = in.TakeLittleEndian<std::uint64_t>();
    set.runs.push_back(run);
  }
  return set;
}

}  // namespace vmsave
