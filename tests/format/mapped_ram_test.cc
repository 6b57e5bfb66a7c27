#include "format/mapped_ram.h"

#include <gtest/gtest.h>

#include "tests/format/golden.h"

namespace vmsave {
namespace {

constexpr std::string_view kHeader =
    "000000010000000000001000"
    "00000000000100f3"
    "0000000000100000";

void ExpectRefused(const Bytes& bytes, std::string_view words) {
  ExpectDamaged(
      [&] {
        ByteReader in(bytes, "vm1.sav");
        TakeMappedRamHeader(in, "pc.ram");
      },
      words);
}

FixedOffsetLayout LayOut(std::uint64_t start, const std::vector<BlockShape>& blocks) {
  return LayOutFixedOffsets(FileOffset{start}, {.machine = "pc-i440fx-7.2", .ram_section_id = 2}, blocks);
}

TEST(MappedRamHeaderTest, EncodesTheGoldenBytes) {
  ByteWriter out;
  AppendMappedRamHeader(out, {FileOffset{golden::kBitmapOffset}, FileOffset{golden::kPagesOffset}});
  EXPECT_EQ(out.size(), kMappedRamHeaderBytes);
  EXPECT_EQ(ToHex(out.Take()), kHeader);
}

TEST(MappedRamHeaderTest, DecodesTheGoldenBytes) {
  const Bytes bytes = Hex(kHeader);
  ByteReader in(bytes, "vm1.sav");
  const MappedRamHeader header = TakeMappedRamHeader(in, "pc.ram");
  EXPECT_EQ(header.bitmap_offset, FileOffset{golden::kBitmapOffset});
  EXPECT_EQ(header.pages_offset, FileOffset{golden::kPagesOffset});
  EXPECT_EQ(in.left(), 0U);
}

TEST(MappedRamHeaderTest, RefusesUnknownVersionAndPageSize) {
  for (const std::size_t at : {3U, 10U}) {
    Bytes bytes = Hex(kHeader);
    bytes[at] ^= std::byte{0x20};
    ExpectRefused(bytes, "mapped-ram header of block pc.ram");
  }
}

TEST(MappedRamHeaderTest, RefusesTruncationAtEveryByte) {
  const Bytes whole = Hex(kHeader);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    ExpectRefused({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}, "ends early");
  }
}

TEST(LayoutTest, MatchesTheGoldenImage) {
  const FixedOffsetLayout layout = LayOut(golden::kStreamStart, {{"pc.ram", ByteCount{8192}}});
  ASSERT_EQ(layout.blocks.size(), 1U);
  EXPECT_EQ(layout.blocks[0].bitmap_offset, FileOffset{golden::kBitmapOffset});
  EXPECT_EQ(layout.blocks[0].pages_offset, FileOffset{golden::kPagesOffset});
  ASSERT_EQ(layout.stream_parts.size(), 2U);
  EXPECT_EQ(layout.stream_parts[0].offset, FileOffset{golden::kStreamStart});
  EXPECT_EQ(ToHex(layout.stream_parts[0].bytes), golden::kMappedHead);
  EXPECT_EQ(layout.stream_parts[1].offset, FileOffset{golden::kRamEndOffset});
  EXPECT_EQ(ToHex(layout.stream_parts[1].bytes), golden::kRamEnd);
  EXPECT_EQ(layout.device_state_offset, FileOffset{golden::kDeviceStateOffset});
}

TEST(LayoutTest, NextBlockFollowsThePagesOfTheOneBefore) {
  const FixedOffsetLayout layout = LayOut(0, {{"pc.ram", ByteCount{1 << 21}}, {"pc.bios", ByteCount{0x40000}}});
  ASSERT_EQ(layout.blocks.size(), 2U);
  EXPECT_EQ(layout.blocks[0].pages_offset, FileOffset{1 << 20});
  const FileOffset second = layout.stream_parts[1].offset;
  EXPECT_EQ(second, FileOffset{3 << 20});
  EXPECT_EQ(ToHex(std::span(layout.stream_parts[1].bytes).first(16)), "0770632e62696f730000000000040000");
  EXPECT_EQ(layout.blocks[1].bitmap_offset, second + ByteCount{16 + 28});
  EXPECT_EQ(layout.blocks[1].pages_offset, FileOffset{4 << 20});
  EXPECT_EQ(layout.stream_parts[2].offset, FileOffset{(4 << 20) + 0x40000});
}

TEST(LayoutTest, PagesAreAlwaysAligned) {
  for (std::uint64_t start = 1048400; start < 1048700; ++start) {
    const FixedOffsetLayout layout = LayOut(start, {{"a", ByteCount{4096}}, {"b", ByteCount{8192}}});
    for (const MappedRamHeader& block : layout.blocks) {
      EXPECT_EQ(block.pages_offset.value() % kPagesAlignment, 0U);
      EXPECT_GE(block.pages_offset, block.bitmap_offset + ByteCount{8});
    }
  }
}

TEST(LayoutTest, SwitchoverStartMovesTheDeviceState) {
  const StreamFrame frame{.machine = "pc-i440fx-7.2", .ram_section_id = 2, .switchover_start = true};
  const FixedOffsetLayout layout =
      LayOutFixedOffsets(FileOffset{golden::kStreamStart}, frame, {{"pc.ram", ByteCount{8192}}});
  EXPECT_EQ(layout.device_state_offset, FileOffset{golden::kDeviceStateOffset + 5});
}

TEST(LayoutTest, RefusesLengthsThatAreNotWholePages) {
  ExpectDamaged([] { LayOut(0, {{"pc.ram", ByteCount{4097}}}); }, "RAM block pc.ram");
}

TEST(LayoutTest, RefusesSizesThatOverflow) {
  constexpr std::uint64_t kHuge = ~std::uint64_t{0} - 4095;
  ExpectDamaged([] { LayOut(0, {{"a", ByteCount{kHuge}}}); }, "out of range");
  ExpectDamaged([] { LayOut(0, {{"a", ByteCount{kHuge}}, {"b", ByteCount{kHuge}}}); }, "out of range");
  ExpectDamaged([] { LayOut(~std::uint64_t{0} - 10, {{"a", ByteCount{4096}}}); }, "out of range");
}

}  // namespace
}  // namespace vmsave
