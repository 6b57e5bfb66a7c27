// The integrity table of a version 3 image.
#include "format/bytes.h"
#include "format/integrity_table.h"
#include "format/page_hash.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

constexpr std::string_view kFile = "fuzz";

// With a checksum that is right: it is no obstacle to who damages a table on purpose.
std::vector<std::byte> Sealed(std::span<const std::byte> bytes) {
  ByteWriter table;
  table.Append(bytes);
  table.AppendLittleEndian(Xxh3(bytes));
  return table.Take();
}

void TakeTable(std::span<const std::byte> bytes) {
  IntegrityTable taken;
  if (!Takes([&] { taken = DecodeIntegrityTable(bytes, kFile); })) return;
  for (const HashedBlock& block : taken.blocks) Require(block.chunk_hashes.size() == ChunkCount(block.length));
  const std::vector<std::byte> encoded = EncodeIntegrityTable(taken);
  Require(std::ranges::equal(encoded, bytes));
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  if (input.choice % 2 == 0) {
    vmsave::TakeTable(vmsave::Sealed(input.bytes));
  } else {
    vmsave::TakeTable(input.bytes);
  }
  return 0;
}
