#include "tests/fuzz/sparse_input.h"

#include <algorithm>
#include <array>

#include "format/bytes.h"

namespace vmsave {
namespace {

constexpr std::size_t kMaxHoles = 64;
constexpr std::size_t kHoleBytes = 4;             // its place in the data and its length, in pages
constexpr std::uint64_t kMaxHolePages = 2048;     // of one
constexpr std::uint64_t kMaxPagesInHoles = 2048;  // of all: a file with more is a large one
constexpr std::size_t kLeastHolePages = 2;

struct Hole {
  std::uint64_t place;
  std::uint64_t pages;
};

Hole TakeHole(std::span<const std::byte> bytes) {
  return {GetLittleEndian<std::uint16_t>(bytes), GetLittleEndian<std::uint16_t>(bytes.subspan(2)) % kMaxHolePages};
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

// How many whole pages of zeros begin the bytes.
std::size_t ZeroPages(std::span<const std::byte> bytes) {
  std::size_t pages = 0;
  while (pages + 1 < kMaxHolePages && (pages + 1) * kPageBytes <= bytes.size() &&
         IsZero(bytes.subspan(pages * kPageBytes, kPageBytes))) {
    ++pages;
  }
  return pages;
}

}  // namespace

void PutSparseInput(std::span<const std::byte> input, MemoryFile& file) {
  if (input.empty()) return;
  const std::size_t most = (input.size() - 1) / kHoleBytes;
  const std::size_t holes = std::min({std::to_integer<std::size_t>(input.back()), kMaxHoles, most});
  const auto table = input.subspan(input.size() - 1 - holes * kHoleBytes, holes * kHoleBytes);
  const auto data = input.first(input.size() - 1 - table.size());
  std::uint64_t done = 0;
  std::uint64_t pages_in_holes = 0;
  for (std::size_t i = 0; i < holes; ++i) {
    const Hole hole = TakeHole(table.subspan(i * kHoleBytes));
    const std::uint64_t place = std::min<std::uint64_t>(hole.place * kPageBytes, data.size());
    if (place < done || pages_in_holes + hole.pages > kMaxPagesInHoles) continue;
    pages_in_holes += hole.pages;
    file.Append(data.subspan(done, place - done));
    file.AppendHole(ByteCount{hole.pages * kPageBytes});
    done = place;
  }
  file.Append(data.subspan(done));
}

std::vector<std::byte> MakeSparseInput(std::span<const std::byte> file) {
  ByteWriter data;
  ByteWriter table;
  std::size_t holes = 0;
  for (std::size_t at = 0; at < file.size();) {
    const std::size_t zero = holes < kMaxHoles ? ZeroPages(file.subspan(at)) : 0;
    if (zero >= kLeastHolePages) {
      table.AppendLittleEndian(static_cast<std::uint16_t>(data.size() / kPageBytes));
      table.AppendLittleEndian(static_cast<std::uint16_t>(zero));
      ++holes;
      at += zero * kPageBytes;
    } else {
      data.Append(file.subspan(at, std::min<std::size_t>(kPageBytes, file.size() - at)));
      at += kPageBytes;
    }
  }
  data.Append(table.Take());
  data.AppendLittleEndian(static_cast<std::uint8_t>(holes));
  return data.Take();
}

}  // namespace vmsave
