#include "format/multifd_packet.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

constexpr std::string_view kHello =
    "1122334400000001"
    "00112233445566778899aabbccddeeff"
    "03"
    "00000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000";

// Packet 0x102 with SYNC: pages 5 and 2 of pc.ram are normal, page 0x100000 is zero.
constexpr std::string_view kFields =
    "1122334400000001"
    "00000001"
    "00000080"
    "00000002"
    "00002000"
    "0000000000000102"
    "00000001"
    "00000000"
    "000000000000000000000000000000000000000000000000";
constexpr std::string_view kOffsets =
    "0000000000005000"
    "0000000000002000"
    "0000000100000000";

constexpr std::size_t kFlags = 8;
constexpr std::size_t kPagesAllocated = 12;
constexpr std::size_t kNormalPages = 16;
constexpr std::size_t kPayload = 20;
constexpr std::size_t kZeroPages = 32;
constexpr std::size_t kName = 64;
constexpr std::size_t kOffsetsStart = 320;

Bytes GoldenPacket() {
  Bytes bytes(1344);
  Place(bytes, 0, Hex(kFields));
  Place(bytes, kName, ToBytes("pc.ram"));
  Place(bytes, kOffsetsStart, Hex(kOffsets));
  return bytes;
}

template <class Int>
Bytes With(std::size_t at, Int value) {
  Bytes bytes = GoldenPacket();
  PutBigEndian<Int>(std::span(bytes).subspan(at), value);
  return bytes;
}

Bytes WithoutPages() {
  Bytes bytes = With<std::uint32_t>(kNormalPages, 0);
  PutBigEndian<std::uint32_t>(std::span(bytes).subspan(kZeroPages), 0);
  return bytes;
}

std::unique_ptr<MultifdPacket> Decode(const Bytes& bytes) {
  auto packet = std::make_unique<MultifdPacket>();
  packet->Decode(bytes);
  return packet;
}

void ExpectRefused(const Bytes& bytes, std::string_view words) {
  ExpectDamaged([&] { Decode(bytes); }, words);
}

std::vector<std::uint64_t> Numbers(std::span<const PageIndex> pages) {
  std::vector<std::uint64_t> numbers;
  for (const PageIndex page : pages) numbers.push_back(page.value());
  return numbers;
}

Bytes Encode(const MultifdPacket& packet) {
  Bytes bytes(kMultifdPacketBytes, std::byte{0xee});
  packet.Encode(std::span(bytes).first<kMultifdPacketBytes>());
  return bytes;
}

MultifdHello ExampleHello() {
  MultifdHello hello{.channel = 3};
  std::ranges::copy(Hex("00112233445566778899aabbccddeeff"), hello.uuid.begin());
  return hello;
}

TEST(MultifdHelloTest, EncodesTheGoldenBytes) {
  EXPECT_EQ(ToHex(EncodeMultifdHello(ExampleHello())), kHello);
}

TEST(MultifdHelloTest, DecodesTheGoldenBytes) {
  EXPECT_EQ(DecodeMultifdHello(Hex(kHello)), ExampleHello());
}

TEST(MultifdHelloTest, RefusesAnotherMagicAndVersion) {
  Bytes bytes = Hex(kHello);
  bytes[3] ^= std::byte{1};
  ExpectDamaged([&] { DecodeMultifdHello(bytes); }, "starts with 11223345 instead of 11223344");
  bytes = Hex(kHello);
  bytes[7] = std::byte{2};
  ExpectDamaged([&] { DecodeMultifdHello(bytes); }, "version 2 is not known");
}

TEST(MultifdHelloTest, RefusesEveryOtherLength) {
  Bytes bytes = Hex(kHello);
  bytes.push_back(std::byte{0});
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    if (length == kMultifdHelloBytes) continue;
    ExpectDamaged([&] { DecodeMultifdHello(std::span(bytes).first(length)); }, "bytes instead of 64");
  }
}

TEST(MultifdHelloTest, TakesAnythingInUnusedBytes) {
  Bytes bytes = Hex(kHello);
  for (std::size_t at = 25; at < bytes.size(); ++at) bytes[at] = std::byte{0xa5};
  EXPECT_EQ(DecodeMultifdHello(bytes), ExampleHello());
}

TEST(MultifdPacketTest, EncodesTheGoldenBytes) {
  MultifdPacket packet;
  packet.Start(0x102, "pc.ram");
  packet.AddNormal(PageIndex{5});
  packet.AddNormal(PageIndex{2});
  packet.AddZero(PageIndex{0x100000});
  packet.set_sync(true);
  EXPECT_EQ(packet.payload(), ByteCount{8192});
  EXPECT_EQ(ToHex(Encode(packet)), ToHex(GoldenPacket()));
}

TEST(MultifdPacketTest, DecodesTheGoldenBytes) {
  const auto packet = Decode(GoldenPacket());
  EXPECT_TRUE(packet->sync());
  EXPECT_EQ(packet->number(), 0x102U);
  EXPECT_EQ(packet->block(), "pc.ram");
  EXPECT_EQ(packet->page_count(), 3U);
  EXPECT_EQ(Numbers(packet->normal_pages()), (std::vector<std::uint64_t>{5, 2}));
  EXPECT_EQ(Numbers(packet->zero_pages()), (std::vector<std::uint64_t>{0x100000}));
  EXPECT_EQ(packet->payload(), ByteCount{8192});
}

TEST(MultifdPacketTest, NormalPagesComeFirstWhateverTheOrderTheyWereAddedIn) {
  MultifdPacket packet;
  packet.Start(0, "pc.ram");
  packet.AddZero(PageIndex{1});
  packet.AddNormal(PageIndex{2});
  packet.AddZero(PageIndex{3});
  packet.AddNormal(PageIndex{4});
  EXPECT_EQ(Numbers(packet.normal_pages()), (std::vector<std::uint64_t>{2, 4}));
  EXPECT_EQ(Numbers(packet.zero_pages()), (std::vector<std::uint64_t>{3, 1}));
}

TEST(MultifdPacketTest, HoldsAFullPacketAndTheLongestName) {
  const std::string name(255, 'n');
  MultifdPacket packet;
  packet.Start(7, name);
  for (std::uint64_t page = 0; page < kMultifdPagesPerPacket; ++page) packet.AddNormal(PageIndex{page});
  const auto decoded = Decode(Encode(packet));
  EXPECT_EQ(decoded->block(), name);
  EXPECT_EQ(decoded->normal_pages().size(), kMultifdPagesPerPacket);
  EXPECT_EQ(decoded->payload(), ByteCount{512 << 10});
  EXPECT_FALSE(decoded->sync());
}

TEST(MultifdPacketTest, APacketUsedAgainKeepsNothing) {
  MultifdPacket packet;
  packet.Decode(GoldenPacket());
  packet.Start(0x103, "ram");
  EXPECT_FALSE(packet.sync());
  EXPECT_EQ(packet.page_count(), 0U);
  EXPECT_EQ(packet.block(), "ram");
  packet.Decode(WithoutPages());
  EXPECT_EQ(packet.number(), 0x102U);
  EXPECT_EQ(packet.page_count(), 0U);
}

TEST(MultifdPacketTest, APacketWithoutPagesNeedsNoNameAndNoRoom) {
  Bytes bytes = WithoutPages();
  Place(bytes, kName, Bytes(256));
  PutBigEndian<std::uint32_t>(std::span(bytes).subspan(kPagesAllocated), 0);
  const auto packet = Decode(bytes);
  EXPECT_TRUE(packet->sync());
  EXPECT_EQ(packet->block(), "");
}

// QEMU 7.2 leaves there what the packet before had.
TEST(MultifdPacketTest, OldOffsetsAndPayloadOfAPacketWithoutPagesMeanNothing) {
  Bytes bytes = WithoutPages();
  Place(bytes, kOffsetsStart, Hex("0000000000000001"));
  EXPECT_EQ(Decode(bytes)->payload(), ByteCount{0});
}

TEST(MultifdPacketTest, RefusesAnotherMagicAndVersion) {
  ExpectRefused(With<std::uint32_t>(0, kMultifdMagic + 1), "starts with 11223345");
  ExpectRefused(With<std::uint32_t>(4, 2), "version 2 is not known");
}

TEST(MultifdPacketTest, RefusesCompressionByItsName) {
  ExpectRefused(With<std::uint32_t>(kFlags, 1 << 1), "multifd packet 258: compressed multifd (zlib) is not supported");
  ExpectRefused(With<std::uint32_t>(kFlags, 2 << 1), "compressed multifd (zstd)");
  ExpectRefused(With<std::uint32_t>(kFlags, 4 << 1), "compressed multifd (qpl)");
  ExpectRefused(With<std::uint32_t>(kFlags, 8 << 1), "compressed multifd (uadk)");
  ExpectRefused(With<std::uint32_t>(kFlags, 16 << 1), "compressed multifd (qatzip)");
  ExpectRefused(With<std::uint32_t>(kFlags, 3 << 1), "compressed multifd (an unknown method)");
}

TEST(MultifdPacketTest, RefusesDeviceStateAndEveryOtherFlag) {
  ExpectRefused(With<std::uint32_t>(kFlags, 64), "multifd packet 258: device state");
  for (unsigned bit = 7; bit < 32; ++bit) {
    ExpectRefused(With<std::uint32_t>(kFlags, 1U | 1U << bit), "multifd packet 258: its flags");
  }
}

TEST(MultifdPacketTest, RefusesMorePagesThanAPacketHolds) {
  ExpectRefused(With<std::uint32_t>(kNormalPages, 128), "multifd packet 258: it has 128 normal and 1 zero pages");
  ExpectRefused(With<std::uint32_t>(kZeroPages, 127), "it has 2 normal and 127 zero pages");
  ExpectRefused(With<std::uint32_t>(kZeroPages, 0xffffffff), "a packet holds 128");
  ExpectRefused(With<std::uint32_t>(kNormalPages, 0xffffffff), "a packet holds 128");
}

TEST(MultifdPacketTest, RefusesRoomForAnotherNumberOfPages) {
  ExpectRefused(With<std::uint32_t>(kPagesAllocated, 0), "multifd packet 258: it has room for 0 pages");
  ExpectRefused(With<std::uint32_t>(kPagesAllocated, 8), "it has room for 8 pages");
  ExpectRefused(With<std::uint32_t>(kPagesAllocated, 129), "it has room for 129 pages");
}

TEST(MultifdPacketTest, RefusesAPayloadThatIsNotThePages) {
  ExpectRefused(With<std::uint32_t>(kPayload, 8191), "multifd packet 258: 8191 bytes follow 2 pages instead of 8192");
  ExpectRefused(With<std::uint32_t>(kPayload, 0), "0 bytes follow 2 pages");
}

TEST(MultifdPacketTest, RefusesFieldsThatAreNotKnown) {
  for (std::size_t at = 36; at < kName; ++at) {
    ExpectRefused(With<std::uint8_t>(at, 1), "multifd packet 258: it uses fields that are not known");
  }
}

TEST(MultifdPacketTest, RefusesANameWithoutAnEnd) {
  Bytes bytes = GoldenPacket();
  Place(bytes, kName, Bytes(256, std::byte{'n'}));
  ExpectRefused(bytes, "multifd packet 258: the name of its block has no end");
}

TEST(MultifdPacketTest, RefusesPagesWithoutAName) {
  ExpectRefused(With<std::uint8_t>(kName, 0), "multifd packet 258: it has pages of a block without a name");
}

TEST(MultifdPacketTest, RefusesOffsetsThatAreNotPages) {
  for (const std::size_t slot : {0U, 1U, 2U}) {
    ExpectRefused(With<std::uint64_t>(kOffsetsStart + 8 * slot, 0x7800),
                  "multifd packet 258: offset 0x7800 in block pc.ram");
  }
}

TEST(MultifdPacketTest, RefusesAPageThatComesTwice) {
  ExpectRefused(With<std::uint64_t>(kOffsetsStart + 8, 0x5000),
                "multifd packet 258: page 5 of block pc.ram comes twice");
  ExpectRefused(With<std::uint64_t>(kOffsetsStart + 16, 0x5000), "page 5 of block pc.ram comes twice");
}

TEST(MultifdPacketTest, RefusesEveryOtherLength) {
  Bytes bytes = GoldenPacket();
  bytes.push_back(std::byte{0});
  MultifdPacket packet;
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    if (length == kMultifdPacketBytes) continue;
    ExpectDamaged([&] { packet.Decode(std::span(bytes).first(length)); }, "bytes instead of 1344");
  }
}

TEST(MultifdPacketTest, ChecksNormalAndZeroPagesAgainstTheBlocksLength) {
  const auto packet = Decode(GoldenPacket());
  packet->CheckPagesWithin(ByteCount{0x100001ULL << 12});
  ExpectDamaged([&] { packet->CheckPagesWithin(ByteCount{0x100000ULL << 12}); },
                "multifd packet 258: page 1048576 lies beyond the end of block pc.ram, which has 1048576 pages");
  ExpectDamaged([&] { packet->CheckPagesWithin(ByteCount{5 << 12}); }, "page 5 lies beyond the end");
  ExpectDamaged([&] { packet->CheckPagesWithin(ByteCount{0}); }, "which has 0 pages");
}

}  // namespace
}  // namespace vmsave
