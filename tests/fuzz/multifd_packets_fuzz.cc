// What a multifd channel brings: a hello, or packets one after another.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "format/multifd_packet.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

constexpr ByteCount kBlockLength{1024 * kPageBytes};

void CheckTakenPages(const MultifdPacket& packet) {
  const auto normal = packet.normal_pages();
  const auto zero = packet.zero_pages();
  Require(normal.size() + zero.size() == packet.page_count() && packet.page_count() <= kMultifdPagesPerPacket);
  Require(packet.payload() == ByteCount{normal.size() * kPageBytes});
  Require(packet.block().size() < kMultifdNameBytes);
  std::vector<PageIndex> pages(normal.begin(), normal.end());
  pages.insert(pages.end(), zero.begin(), zero.end());
  std::ranges::sort(pages);
  Require(std::ranges::adjacent_find(pages) == pages.end());
  if (Takes([&] { packet.CheckPagesWithin(kBlockLength); }) && !pages.empty()) {
    Require(pages.back().value() < kBlockLength.value() / kPageBytes);
  }
}

// What we would send for it means the same.
void CheckSentAgain(const MultifdPacket& packet) {
  std::array<std::byte, kMultifdPacketBytes> bytes{};
  packet.Encode(bytes);
  MultifdPacket again;
  again.Decode(bytes);
  Require(again.number() == packet.number() && again.sync() == packet.sync() && again.block() == packet.block());
  Require(std::ranges::equal(again.normal_pages(), packet.normal_pages()));
  Require(std::ranges::equal(again.zero_pages(), packet.zero_pages()));
}

void TakePackets(std::span<const std::byte> bytes) {
  MultifdPacket packet;
  while (!bytes.empty()) {
    const auto head = bytes.first(std::min(bytes.size(), kMultifdPacketBytes));
    if (!Takes([&] { packet.Decode(head); })) return;
    CheckTakenPages(packet);
    CheckSentAgain(packet);
    bytes = bytes.subspan(head.size());
  }
}

void TakeHello(std::span<const std::byte> bytes) {
  MultifdHello hello;
  if (!Takes([&] { hello = DecodeMultifdHello(bytes); })) return;
  Require(DecodeMultifdHello(EncodeMultifdHello(hello)) == hello);
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  input.choice % 2 == 0 ? vmsave::TakePackets(input.bytes) : vmsave::TakeHello(input.bytes);
  return 0;
}
