#include "format/bytes.h"

#include <gtest/gtest.h>

#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

TEST(BytesTest, LittleEndianPutsLowByteFirst) {
  ByteWriter writer;
  writer.AppendLittleEndian<std::uint8_t>(0x01);
  writer.AppendLittleEndian<std::uint16_t>(0x0203);
  writer.AppendLittleEndian<std::uint32_t>(0x04050607);
  writer.AppendLittleEndian<std::uint64_t>(0x08090a0b0c0d0e0f);
  EXPECT_EQ(ToHex(writer.Take()), "010302070605040f0e0d0c0b0a0908");
}

TEST(BytesTest, BigEndianPutsHighByteFirst) {
  ByteWriter writer;
  writer.AppendBigEndian<std::uint8_t>(0x01);
  writer.AppendBigEndian<std::uint16_t>(0x0203);
  writer.AppendBigEndian<std::uint32_t>(0x04050607);
  writer.AppendBigEndian<std::uint64_t>(0x08090a0b0c0d0e0f);
  EXPECT_EQ(ToHex(writer.Take()), "0102030405060708090a0b0c0d0e0f");
}

TEST(BytesTest, ReadsWithBothByteOrders) {
  const Bytes bytes = Hex("0102030405060708fffefdfcfbfaf9f8");
  EXPECT_EQ(GetLittleEndian<std::uint16_t>(bytes), 0x0201);
  EXPECT_EQ(GetBigEndian<std::uint16_t>(bytes), 0x0102);
  EXPECT_EQ(GetLittleEndian<std::uint64_t>(bytes), 0x0807060504030201);
  EXPECT_EQ(GetBigEndian<std::uint64_t>(std::span(bytes).subspan(8)), 0xfffefdfcfbfaf9f8);
}

TEST(BytesTest, PutLeavesBytesBehindTheFieldAlone) {
  Bytes bytes(4, std::byte{0xee});
  PutLittleEndian<std::uint16_t>(bytes, 0x1234);
  EXPECT_EQ(ToHex(bytes), "3412eeee");
  PutBigEndian<std::uint16_t>(bytes, 0x1234);
  EXPECT_EQ(ToHex(bytes), "1234eeee");
}

TEST(ByteWriterTest, AppendsTextAndZeros) {
  ByteWriter writer;
  writer.Append("ab");
  writer.AppendZeros(3);
  writer.Append("");
  EXPECT_EQ(writer.size(), 5U);
  EXPECT_EQ(ToHex(writer.Take()), "6162000000");
}

TEST(ByteReaderTest, TakesFieldsInOrderUntilNothingIsLeft) {
  const Bytes bytes = Hex("01020304050607");
  ByteReader reader(bytes, "thing");
  EXPECT_EQ(reader.TakeBigEndian<std::uint8_t>(), 1);
  EXPECT_EQ(reader.TakeLittleEndian<std::uint32_t>(), 0x05040302U);
  EXPECT_EQ(ToHex(reader.Take(2)), "0607");
  EXPECT_EQ(reader.left(), 0U);
  EXPECT_TRUE(reader.Take(0).empty());
}

TEST(ByteReaderTest, RefusesToReadPastTheEnd) {
  const Bytes bytes = Hex("010203");
  ByteReader reader(bytes, "thing");
  ExpectDamaged([&] { reader.TakeLittleEndian<std::uint32_t>(); }, "thing: it ends early");
  ExpectDamaged([&] { reader.TakeBigEndian<std::uint64_t>(); }, "thing: it ends early");
  ExpectDamaged([&] { reader.Take(~std::uint64_t{0}); }, "thing: it ends early");
  EXPECT_EQ(reader.left(), 3U);
}

}  // namespace
}  // namespace vmsave
