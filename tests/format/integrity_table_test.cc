#include "format/integrity_table.h"

#include <gtest/gtest.h>

#include "format/page_hash.h"
#include "tests/format/golden.h"

namespace vmsave {
namespace {

IntegrityTable Example() {
  IntegrityTable table;
  table.ranges = {{FileOffset{golden::kStreamStart}, ByteCount{149}, golden::kHeadRangeHash},
                  {FileOffset{golden::kRamEndOffset}, ByteCount{103}, golden::kTailRangeHash}};
  table.blocks = {{"pc.ram", ByteCount{8192}, std::nullopt, {golden::kPage1Hash}}};
  return table;
}

// The bytes with a right checksum behind them, as a hostile writer would make them.
Bytes Sealed(Bytes bytes) {
  bytes.resize(bytes.size() - 8);
  ByteWriter writer;
  writer.Append(bytes);
  writer.AppendLittleEndian(Xxh3(bytes));
  return writer.Take();
}

// The golden table with one little-endian field changed.
template <class Int>
Bytes With(std::size_t offset, Int value) {
  Bytes bytes = Hex(golden::kIntegrityTable);
  PutLittleEndian<Int>(std::span(bytes).subspan(offset), value);
  return Sealed(bytes);
}

void ExpectRefused(const Bytes& bytes, std::string_view words) {
  ExpectDamaged([&] { DecodeIntegrityTable(bytes, "vm1.sav"); }, words);
}

TEST(IntegrityTableTest, EncodesTheGoldenBytes) {
  EXPECT_EQ(ToHex(EncodeIntegrityTable(Example())), golden::kIntegrityTable);
}

TEST(IntegrityTableTest, DecodesTheGoldenBytes) {
  const IntegrityTable table = DecodeIntegrityTable(Hex(golden::kIntegrityTable), "vm1.sav");
  ASSERT_EQ(table.ranges.size(), 2U);
  EXPECT_EQ(table.ranges[0].offset, FileOffset{golden::kStreamStart});
  EXPECT_EQ(table.ranges[0].length, ByteCount{149});
  EXPECT_EQ(table.ranges[0].hash, golden::kHeadRangeHash);
  EXPECT_EQ(table.ranges[1].hash, golden::kTailRangeHash);
  ASSERT_EQ(table.blocks.size(), 1U);
  EXPECT_EQ(table.blocks[0].name, "pc.ram");
  EXPECT_EQ(table.blocks[0].length, ByteCount{8192});
  EXPECT_FALSE(table.blocks[0].address);
  EXPECT_EQ(table.blocks[0].chunk_hashes, std::vector<std::uint64_t>{golden::kPage1Hash});
}

TEST(IntegrityTableTest, GoldenHashesAreThoseOfTheGoldenImage) {
  const Bytes image = golden::Version3Image();
  for (const HashedRange& range : Example().ranges) {
    EXPECT_EQ(Xxh3(std::span(image).subspan(range.offset.value(), range.length.value())), range.hash);
  }
}

TEST(IntegrityTableTest, KeepsAddressesAndManyChunks) {
  IntegrityTable table;
  table.blocks = {{"a", ByteCount{kChunkBytes * 2 + kPageBytes}, GuestAddress{0}, {1, 0, 3}},
                  {"b", ByteCount{kPageBytes}, GuestAddress{0x100000000}, {0}}};
  const IntegrityTable back = DecodeIntegrityTable(EncodeIntegrityTable(table), "vm1.sav");
  ASSERT_EQ(back.blocks.size(), 2U);
  EXPECT_EQ(back.blocks[0].address, GuestAddress{0});
  EXPECT_EQ(back.blocks[0].chunk_hashes, (std::vector<std::uint64_t>{1, 0, 3}));
  EXPECT_EQ(back.blocks[1].address, GuestAddress{0x100000000});
}

TEST(IntegrityTableTest, CountsChunksRoundedUp) {
  EXPECT_EQ(ChunkCount(ByteCount{0}), 0U);
  EXPECT_EQ(ChunkCount(ByteCount{kPageBytes}), 1U);
  EXPECT_EQ(ChunkCount(ByteCount{kChunkBytes}), 1U);
  EXPECT_EQ(ChunkCount(ByteCount{kChunkBytes + kPageBytes}), 2U);
}

TEST(IntegrityTableTest, FindsEveryFlippedBit) {
  Bytes bytes = Hex(golden::kIntegrityTable);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    ExpectRefused(bytes, "integrity table of vm1.sav");
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

TEST(IntegrityTableTest, RefusesTruncationAtEveryByte) {
  const Bytes whole = Hex(golden::kIntegrityTable);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    ExpectRefused(cut, "vm1.sav");
    if (length >= 8) ExpectRefused(Sealed(cut), "vm1.sav");
  }
}

TEST(IntegrityTableTest, RefusesUnknownKindsBeforeItsChecksum) {
  Bytes bytes = Hex(golden::kIntegrityTable);
  bytes[0] = std::byte{'X'};
  ExpectRefused(bytes, "there is none at its place");
  ExpectRefused(With<std::uint32_t>(8, 2), "version 2");
  ExpectRefused(With<std::uint32_t>(12, 2), "algorithm 2");
  ExpectRefused(With<std::uint32_t>(16, 4096), "chunk size 4096");
}

TEST(IntegrityTableTest, RefusesCountsThatAreNotThere) {
  ExpectRefused(With<std::uint32_t>(20, 0xffffffff), "ends early");
  ExpectRefused(With<std::uint32_t>(24, 0xffffffff), "ends early");
  ExpectRefused(With<std::uint32_t>(24, 0), "left over");
}

TEST(IntegrityTableTest, RefusesBlocksThatDoNotFit) {
  constexpr std::size_t kBlock = 76;  // behind the head (28) and two ranges (24 each)
  ExpectRefused(With<std::uint32_t>(kBlock, 0xffffffff), "ends early");
  ExpectRefused(With<std::uint64_t>(kBlock + 10, 0xfffffffffffff000), "ends early");
  ExpectRefused(With<std::uint64_t>(kBlock + 10, 0x7ffffffffffff000), "ends early");
  ExpectRefused(With<std::uint64_t>(kBlock + 18, 2097152), "unknown size");
}

TEST(IntegrityTableTest, RefusesALengthThatIsNotWholePages) {
  ExpectRefused(With<std::uint64_t>(76 + 10, 8191), "length");
}

TEST(IntegrityTableTest, RefusesBytesBehindTheLastBlock) {
  Bytes bytes = Hex(golden::kIntegrityTable);
  bytes.push_back(std::byte{0});
  ExpectRefused(Sealed(bytes), "left over");
}

TEST(IntegrityTableTest, TakesATableOfNothing) {
  EXPECT_EQ(EncodeIntegrityTable({}).size(), 36U);
  EXPECT_TRUE(DecodeIntegrityTable(EncodeIntegrityTable({}), "vm1.sav").blocks.empty());
}

}  // namespace
}  // namespace vmsave
