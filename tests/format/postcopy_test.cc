#include "format/postcopy.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

constexpr ByteCount kHugePage{2 << 20};

std::vector<PostcopyBlock> Blocks() {
  return {{"pc.ram", ByteCount{0x42000}}, {"huge", ByteCount{4 << 20}, kHugePage}};
}

Bytes Name(std::string_view name) {
  ByteWriter out;
  out.AppendBigEndian(static_cast<std::uint8_t>(name.size()));
  out.Append(name);
  return out.Take();
}

Bytes Frame(std::uint16_t type, const Bytes& data) {
  ByteWriter out;
  out.AppendBigEndian(type);
  out.AppendBigEndian(static_cast<std::uint16_t>(data.size()));
  out.Append(data);
  return out.Take();
}

Bytes Range(std::uint64_t start, std::uint32_t length) {
  ByteWriter out;
  out.AppendBigEndian(start);
  out.AppendBigEndian(length);
  return out.Take();
}

Bytes Request(std::string_view block, std::uint64_t start, std::uint32_t length = 0x1000) {
  return Frame(3, Join({Range(start, length), Name(block)}));
}

Bytes BitmapOf(std::string_view block, const std::string& length_and_words) {
  return Join({Frame(5, Name(block)), Hex(length_and_words)});
}

PostcopyAnswer Only(const Bytes& bytes) {
  ReturnPathDecoder decoder(Blocks());
  decoder.Feed(bytes);
  std::optional<PostcopyAnswer> answer = decoder.Next();
  EXPECT_TRUE(answer);
  EXPECT_FALSE(decoder.Next());
  return answer.value_or(PostcopyDone{true});
}

void ExpectRefused(const Bytes& bytes, std::string_view words) {
  ReturnPathDecoder decoder(Blocks());
  decoder.Feed(bytes);
  try {
    while (decoder.Next()) {
    }
    ADD_FAILURE() << "was accepted; expected: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFailed);
    EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
  }
}

TEST(PostcopyStreamTest, HeadOpensTheReturnPathAndEmptiesEveryBlock) {
  ByteWriter out;
  const std::array blocks{PostcopyBlock{"a", ByteCount{0x3000}}};
  AppendPostcopyHead(out, {.machine = "q", .ram_section_id = 1}, blocks);
  EXPECT_EQ(ToHex(out.Take()),
            "5145564d00000003"
            "070000000171"
            "0800010000"
            "08000300100000000000001000"
            "0000000000001000"
            "01000000010372616d0000000000000004"
            "0000000000003004"
            "01610000000000003000"
            "00000000000000107e00000001"
            "0800060014"
            "0001610000000000000000000000000000003000");
}

TEST(PostcopyStreamTest, HugePagesAreToldWithTheirBlock) {
  ByteWriter out;
  const std::array blocks{PostcopyBlock{"a", kHugePage, kHugePage}, PostcopyBlock{"b", ByteCount{0x1000}}};
  AppendPostcopyHead(out, {.machine = "q", .ram_section_id = 1}, blocks);
  const std::string head = ToHex(out.Take());
  EXPECT_NE(head.find("0800030010"
                      "0000000000201000"
                      "0000000000001000"),
            std::string::npos);
  EXPECT_NE(head.find("0161"
                      "0000000000200000"
                      "0000000000200000"
                      "0162"
                      "0000000000001000"
                      "0000000000000010"),
            std::string::npos);
}

TEST(PostcopyStreamTest, StartIsAPackageOfListenDevicesAndRun) {
  ByteWriter out;
  AppendPostcopyStart(out, Hex("0411"));
  EXPECT_EQ(ToHex(out.Take()),
            "08000700040000000c08000400000411"
            "0800050000");
}

TEST(PostcopyStreamTest, RecoveryAsksForEveryBitmapAndGoesOn) {
  ByteWriter out;
  const std::array blocks{PostcopyBlock{"a", ByteCount{0x3000}}, PostcopyBlock{"bc", ByteCount{0x1000}}};
  AppendPostcopyRecovery(out, blocks);
  EXPECT_EQ(ToHex(out.Take()),
            "0800010000"
            "08000a0002"
            "0161"
            "08000a0003"
            "026263"
            "0800090000");
}

TEST(PostcopyStreamTest, EndIsAnEmptySectionAndEof) {
  ByteWriter out;
  AppendPostcopyEnd(out, {.machine = "q", .ram_section_id = 2});
  EXPECT_EQ(ToHex(out.Take()), "030000000200000000000000107e0000000200");
}

TEST(DeviceSectionsTest, EndBeforeEofAndDescription) {
  const Bytes state = Join({Hex("0411"), Hex("000600000002"), ToBytes("{}")});
  EXPECT_EQ(ToHex(DeviceSections(state).value()), "0411");
}

// A guest can put into a device's buffer what looks like the end, with a length that fits.
TEST(DeviceSectionsTest, LookalikeInADeviceIsNotTheEnd) {
  const Bytes end = Join({Hex("000600000002"), ToBytes("{}")});
  const Bytes state = Join({Hex("04"), Hex("000600000009"), Hex("04"), end});
  EXPECT_EQ(ToHex(DeviceSections(state).value()), "0400060000000904");
}

TEST(DeviceSectionsTest, WithoutDescriptionEndAtEof) {
  EXPECT_EQ(ToHex(DeviceSections(Hex("041100")).value()), "0411");
}

TEST(DeviceSectionsTest, UnknownWhereThereIsNoEof) {
  EXPECT_FALSE(DeviceSections(Hex("0411")));
  EXPECT_FALSE(DeviceSections({}));
}

TEST(ReturnPathTest, RequestNamesItsBlock) {
  const auto request = std::get<PageRequest>(Only(Request("pc.ram", 0x41000)));
  EXPECT_EQ(request.block, 0U);
  EXPECT_EQ(request.pages.first, 0x41U);
  EXPECT_EQ(request.pages.count, 1U);
}

TEST(ReturnPathTest, RequestWithoutNameIsOfTheBlockBefore) {
  ReturnPathDecoder decoder(Blocks());
  decoder.Feed(Join({Request("huge", 0, 2 << 20), Frame(4, Range(2 << 20, 2 << 20))}));
  decoder.Next();
  const auto request = std::get<PageRequest>(decoder.Next().value());
  EXPECT_EQ(request.block, 1U);
  EXPECT_EQ(request.pages.first, 512U);
  EXPECT_EQ(request.pages.count, 512U);
}

TEST(ReturnPathTest, RefusesRequestsForMoreThanAHostPage) {
  ExpectRefused(Request("pc.ram", 0, 0x2000), "QEMU asked for 8192 bytes at 0 of RAM block pc.ram");
  ExpectRefused(Request("huge", 0, 4 << 20), "QEMU asked for 4194304 bytes");
}

TEST(ReturnPathTest, AnswersComeInWhateverPieces) {
  ReturnPathDecoder decoder(Blocks());
  const Bytes bytes =
      Join({Frame(2, Hex("00000007")), BitmapOf("huge", "0000000000000080"), Bytes(128, std::byte{255}),
            Hex("0123456789abcdef"), Frame(6, Hex("00000001")), Request("pc.ram", 0), Frame(1, Hex("00000000"))});
  std::vector<std::size_t> kinds;
  for (const std::byte byte : bytes) {
    decoder.Feed(std::span(&byte, 1));
    while (const auto answer = decoder.Next()) kinds.push_back(answer->index());
  }
  EXPECT_EQ(kinds, (std::vector<std::size_t>{1, 2, 0, 3}));
}

TEST(ReturnPathTest, BitmapTellsWhatQemuHas) {
  const auto received = std::get<ReceivedPages>(Only(Join(
      {BitmapOf("pc.ram", "0000000000000010"), Hex("05000000000000000200000000000000"), Hex("0123456789abcdef")})));
  EXPECT_EQ(received.block, 0U);
  EXPECT_EQ(received.pages.CountSet(), 3U);
  EXPECT_TRUE(received.pages.Test(65));
}

TEST(ReturnPathTest, EndTellsWhetherItFailed) {
  EXPECT_FALSE(std::get<PostcopyDone>(Only(Frame(1, Hex("00000000")))).failed);
  EXPECT_TRUE(std::get<PostcopyDone>(Only(Frame(1, Hex("00000001")))).failed);
}

TEST(ReturnPathTest, RefusesUnknownTypes) {
  ExpectRefused(Frame(0, {}), "unknown type 0");
  ExpectRefused(Frame(7, {}), "unknown type 7");
  ExpectRefused(Frame(0xffff, {}), "unknown type 65535");
}

TEST(ReturnPathTest, RefusesLengthsThatAreNotTheTypes) {
  ExpectRefused(Frame(1, Hex("000000")), "type 1 with 3 bytes");
  ExpectRefused(Frame(2, {}), "type 2 with 0 bytes");
  ExpectRefused(Frame(3, Range(0, 0x1000)), "type 3 with 12 bytes");
  ExpectRefused(Frame(3, Join({Range(0, 0x1000), Hex("0770632e72616d")})), "type 3 with 19 bytes");
  ExpectRefused(Join({Request("pc.ram", 0), Frame(4, Hex("00"))}), "type 4 with 1 bytes");
  ExpectRefused(Frame(5, {}), "type 5 with 0 bytes");
  ExpectRefused(Frame(6, Hex("0000000001")), "type 6 with 5 bytes");
}

TEST(ReturnPathTest, RefusesRequestsThatNoBlockHas) {
  ExpectRefused(Frame(4, Range(0, 0x1000)), "without a RAM block");
  ExpectRefused(Request("pc.rom", 0), "RAM block pc.rom that is not there");
  ExpectRefused(Request("", 0), "that is not there");
  ExpectRefused(Request("pc.ram", 0x42000), "4096 bytes at 270336 of RAM block pc.ram");
  ExpectRefused(Request("pc.ram", 0x41000, 0x2000), "8192 bytes at 266240");
  ExpectRefused(Request("pc.ram", 0xfffffffffffff000), "of RAM block pc.ram, which has 270336");
  ExpectRefused(Request("pc.ram", 0x800), "4096 bytes at 2048");
  ExpectRefused(Request("pc.ram", 0, 0), "0 bytes at 0");
  ExpectRefused(Request("pc.ram", 0, 0x1001), "4097 bytes");
  ExpectRefused(Request("huge", 0x1000, 2 << 20), "in pages of 2097152");
  ExpectRefused(Request("huge", 0), "in pages of 2097152");
}

TEST(ReturnPathTest, RefusesWhatComesAfterTheEnd) {
  ExpectRefused(Join({Frame(1, Hex("00000000")), Request("pc.ram", 0)}), "after it had said that it is done");
}

TEST(ReturnPathTest, RefusesBitmapsOfAnotherForm) {
  ExpectRefused(BitmapOf("pc.ram", "0000000000000008"), "bitmap of 8 bytes for RAM block pc.ram, which has 16");
  ExpectRefused(BitmapOf("pc.ram", "ffffffffffffffff"), "for RAM block pc.ram");
  ExpectRefused(BitmapOf("nobody", ""), "nobody");
  ExpectRefused(Join({BitmapOf("pc.ram", "0000000000000010"), Bytes(24)}), "does not end as it should");
  ExpectRefused(Join({BitmapOf("pc.ram", "0000000000000010"), Bytes(16, std::byte{255}), Hex("0123456789abcdef")}),
                "that is none");
  const Bytes whole = Join({BitmapOf("huge", "0000000000000080"), Bytes(128, std::byte{255}), Hex("0123456789abcdef")});
  ExpectRefused(Join({BitmapOf("huge", "0000000000000080"), Bytes(1, std::byte{254}), Bytes(127, std::byte{255}),
                      Hex("0123456789abcdef")}),
                "has a part of a page of 2097152 bytes");
  ExpectRefused(Join({whole, whole}), "a second bitmap of RAM block huge");
}

TEST(ReturnPathTest, RefusesToGoOnWhereQemuDoesNot) {
  ExpectRefused(Frame(6, Hex("00000002")), "it answered 2");
}

}  // namespace
}  // namespace vmsave
