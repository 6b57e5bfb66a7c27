#include "writer/arriving_chunks.h"

#include <algorithm>
#include <array>

#include "format/integrity_table.h"

namespace vmsave {
namespace {

static_assert(kPagesPerChunk == 16, "a state has a bit for each page of a chunk");

// Pages of one chunk, all different, next to each other in what came.
struct Group {
  std::size_t count = 0;
  std::uint32_t pages = 0;  // one bit for each
  bool ascending = true;
};

Group FirstGroup(std::span<const PageIndex> pages) {
  Group group;
  const std::uint64_t chunk = pages.front().value() / kPagesPerChunk;
  for (const PageIndex page : pages) {
    const std::uint32_t bit = std::uint32_t{1} << (page.value() % kPagesPerChunk);
    if (page.value() / kPagesPerChunk != chunk || (group.pages & bit) != 0) break;
    if (bit < group.pages) group.ascending = false;
    group.pages |= bit;
    ++group.count;
  }
  return group;
}

std::uint64_t HashInOrder(std::span<const PageIndex> pages, std::span<const std::byte> bytes, Xxh3Stream& hash) {
  std::array<std::size_t, kPagesPerChunk> places{};
  for (std::size_t i = 0; i < pages.size(); ++i) places[pages[i].value() % kPagesPerChunk] = i + 1;
  for (const std::size_t place : places) {
    if (place != 0) hash.Update(bytes.subspan((place - 1) * kPageBytes, kPageBytes));
  }
  return hash.Finish();
}

}  // namespace

ArrivingChunks::ArrivingChunks(std::vector<std::span<std::uint64_t>> hashes) : hashes_(std::move(hashes)) {
  states_.reserve(hashes_.size());
  for (const auto& block : hashes_) states_.emplace_back(block.size());
}

void ArrivingChunks::Add(std::size_t block, std::span<const PageIndex> pages, std::span<const std::byte> bytes,
                         Xxh3Stream& hash) {
  while (!pages.empty()) {
    const Group group = FirstGroup(pages);
    const std::uint64_t chunk = pages.front().value() / kPagesPerChunk;
    const std::span<const std::byte> group_bytes = bytes.first(group.count * kPageBytes);
    State& state = states_[block][chunk];
    // Only one thread ever gets a chunk from 0 to kHashed: the hash is written once and read when all are gone.
    std::uint32_t expected = 0;
    if (state.compare_exchange_strong(expected, kHashed | group.pages, std::memory_order_relaxed)) {
      hashes_[block][chunk] =
          group.ascending ? Xxh3(group_bytes) : HashInOrder(pages.first(group.count), group_bytes, hash);
    } else if (expected != kMixed) {
      state.store(kMixed, std::memory_order_relaxed);
    }
    pages = pages.subspan(group.count);
    bytes = bytes.subspan(group_bytes.size());
  }
}

bool ArrivingChunks::IsHashed(std::size_t block, std::uint64_t chunk, const PageBitmap& present) const {
  const auto pages = static_cast<std::uint32_t>(present.Bits(chunk * kPagesPerChunk, kPagesPerChunk));
  const std::uint32_t state = states_[block][chunk].load(std::memory_order_relaxed);
  return state == (pages == 0 ? 0 : kHashed | pages);
}

}  // namespace vmsave
