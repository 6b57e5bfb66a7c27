// What a save image has around its stream: header, description, integrity table; and where the stream ends.
#include <algorithm>

#include "format/bytes.h"
#include "format/integrity_table.h"
#include "format/page_hash.h"
#include "format/qemu_stream.h"
#include "format/save_header.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

constexpr std::string_view kFile = "fuzz";

void TakeHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kSaveHeaderBytes) return;
  SaveHeader header;
  if (Takes([&] { header = DecodeSaveHeader(bytes.first<kSaveHeaderBytes>(), kFile); })) {
    Require(HasSaveMagic(bytes));
    Require(!BodyFormatName(header.format).empty());
    Require(header.extension.has_value() == (header.version == 3));
    const auto encoded = EncodeSaveHeader(header);
    Require(EncodeSaveHeader(DecodeSaveHeader(encoded, kFile)) == encoded);
  }
  HashBeforeStream(bytes);
}

void TakeDescription(std::span<const std::byte> bytes) {
  std::string text;
  if (!Takes([&] { text = DecodeDescription(bytes, kFile); })) return;
  Require(text.size() < bytes.size() && text.find('\0') == std::string::npos);
}

// With a checksum that is right: it is no obstacle to who damages a table on purpose.
void TakeIntegrityTable(std::span<const std::byte> bytes) {
  ByteWriter table;
  table.Append(bytes);
  table.AppendLittleEndian(Xxh3(bytes));
  const std::vector<std::byte> sealed = table.Take();
  IntegrityTable taken;
  if (!Takes([&] { taken = DecodeIntegrityTable(sealed, kFile); })) return;
  for (const HashedBlock& block : taken.blocks) Require(block.chunk_hashes.size() == ChunkCount(block.length));
  Require(EncodeIntegrityTable(taken) == sealed);
}

void TakeStreamEnd(std::span<const std::byte> bytes) {
  const std::optional<std::size_t> end = FindStreamEnd(bytes);
  Require(!end || *end <= bytes.size());
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  switch (input.choice % 4) {
    case 0:
      vmsave::TakeHeader(input.bytes);
      break;
    case 1:
      vmsave::TakeDescription(input.bytes);
      break;
    case 2:
      vmsave::TakeIntegrityTable(input.bytes);
      break;
    default:
      vmsave::TakeStreamEnd(input.bytes);
  }
  return 0;
}
