// Mapped-ram: a block list whose lengths, offsets and bitmaps come from the input, in a stream that is right otherwise;
// headers and bitmaps by themselves.
#include <algorithm>
#include <array>
#include <optional>

#include "format/stream_reader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/span_source.h"

namespace vmsave {
namespace {

void TakeHeader(std::span<const std::byte> bytes) {
  ByteReader reader(bytes, "fuzz");
  MappedRamHeader header;
  if (!Takes([&] { header = TakeMappedRamHeader(reader, "block"); })) return;
  ByteWriter again;
  AppendMappedRamHeader(again, header);
  Require(std::ranges::equal(again.Take(), bytes.first(kMappedRamHeaderBytes)));
}

// Runs and counts say the same of the pages.
void CheckRuns(const PageBitmap& bitmap) {
  std::uint64_t present = 0;
  std::uint64_t end = 0;
  for (auto run = bitmap.NextPresent(0, bitmap.pages()); run; run = bitmap.NextPresent(end, bitmap.pages())) {
    Require(run->count > 0 && run->first >= end && run->first + run->count <= bitmap.pages());
    Require(bitmap.Test(run->first) && bitmap.Test(run->first + run->count - 1));
    end = run->first + run->count;
    present += run->count;
  }
  Require(present == bitmap.CountSet());
}

void TakeBitmap(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) return;
  const std::span<const std::byte> bits = bytes.first(bytes.size() / 8 * 8);
  const std::uint64_t pages = bits.size() * 8 - bytes.size() % 8 * 8;
  PageBitmap bitmap;
  if (!Takes([&] { bitmap = PageBitmap::Decode(pages, bits); })) return;
  CheckRuns(bitmap);
  Require(std::ranges::equal(bitmap.Encode(), bits));
}

// The input's numbers in the places of a block list: the entries of its first bytes, the rest as what lies behind.
std::vector<std::byte> MakeStream(std::span<const std::byte> bytes) {
  constexpr std::size_t kEntryBytes = 8 + kMappedRamHeaderBytes;
  ByteWriter out;
  ByteReader in(bytes, "fuzz");
  const std::size_t blocks = bytes.empty() ? 0 : std::to_integer<std::size_t>(bytes[0]) % 8;
  if (in.left() < 8 + blocks * kEntryBytes) return {};
  const ByteCount total{in.TakeLittleEndian<std::uint64_t>() >> 8 & ~(kPageBytes - 1)};
  AppendStreamStart(out, {"pc-i440fx-10.0", 2, true}, std::array{kMappedRamCapability}, total);
  for (std::size_t i = 0; i < blocks; ++i) {
    AppendBlockEntry(out, std::string(1, static_cast<char>('a' + i)), ByteCount{in.TakeLittleEndian<std::uint64_t>()});
    out.Append(in.Take(kMappedRamHeaderBytes));
  }
  out.Append(in.Take(in.left()));
  return out.Take();
}

void TakeStream(std::span<const std::byte> bytes, SpanSource::Kind kind) {
  const std::vector<std::byte> stream = MakeStream(bytes);
  SpanSource source(stream, kind);
  StreamContents contents;
  if (!Takes([&] { contents = ReadStreamHead(source); })) return;
  FileOffset end;
  for (const StreamBlock& block : contents.blocks) {
    Require(block.mapped_ram && block.mapped_ram->bitmap_offset >= end);
    Require(block.mapped_ram->pages_offset > block.mapped_ram->bitmap_offset);
    end = block.mapped_ram->pages_offset + block.length;
    CheckRuns(block.present);
  }
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
      vmsave::TakeBitmap(input.bytes);
      break;
    case 2:
      vmsave::TakeStream(input.bytes, vmsave::SpanSource::Kind::kFile);
      break;
    default:
      vmsave::TakeStream(input.bytes, vmsave::SpanSource::Kind::kSocket);
  }
  return 0;
}
