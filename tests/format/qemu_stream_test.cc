#include "format/qemu_stream.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/format/golden.h"

namespace vmsave {
namespace {

StreamFrame ExampleFrame() {
  return {.machine = "pc-i440fx-7.2", .ram_section_id = 2};
}

TEST(QemuStreamTest, WritesTheGoldenStream) {
  const StreamFrame frame = ExampleFrame();
  ByteWriter out;
  const std::array blocks{BlockShape{"pc.ram", ByteCount{8192}}};
  AppendLegacyHead(out, frame, blocks);
  out.Append(MakeRecordHead("pc.ram", PageIndex{0}, false, false).bytes());
  out.Append(Hex("00"));
  out.Append(MakeRecordHead("pc.ram", PageIndex{1}, true, true).bytes());
  out.Append(golden::Page1());
  AppendLegacyTail(out, frame, Hex(golden::kDeviceState));
  EXPECT_EQ(ToHex(out.Take()), ToHex(golden::LegacyStream()));
}

TEST(QemuStreamTest, LegacyHeadListsAllBlocksAndTheirTotal) {
  const std::array blocks{BlockShape{"a", ByteCount{0x3000}}, BlockShape{"rom", ByteCount{0x1000}}};
  ByteWriter out;
  out.Append(Hex("ff"));
  AppendLegacyHead(out, {.machine = "q", .ram_section_id = 1, .switchover_start = true}, blocks);
  EXPECT_EQ(ToHex(out.Take()),
            "ff"
            "5145564d00000003"
            "070000000171"
            "01000000010372616d0000000000000004"
            "0000000000004004"
            "01610000000000003000"
            "03726f6d0000000000001000"
            "00000000000000107e00000001"
            "0200000001");
}

TEST(QemuStreamTest, LegacyTailEndsRamAndAppendsTheDeviceState) {
  StreamFrame frame = ExampleFrame();
  ByteWriter without;
  AppendLegacyTail(without, frame, Hex("0411"));
  EXPECT_EQ(ToHex(without.Take()), std::string(golden::kRamEnd) + "0411");
  frame.switchover_start = true;
  ByteWriter with;
  AppendLegacyTail(with, frame, Hex("0411"));
  EXPECT_EQ(ToHex(with.Take()),
            "00000000000000107e00000002"
            "08000b0000"
            "030000000200000000000000107e00000002"
            "0411");
}

TEST(QemuStreamTest, NamesTheCapabilities) {
  const std::array capabilities{kIgnoreSharedCapability, kMappedRamCapability};
  ByteWriter out;
  AppendStreamStart(out, {.machine = "q", .ram_section_id = 1}, capabilities, ByteCount{4096});
  EXPECT_EQ(ToHex(out.Take()),
            "5145564d00000003"
            "070000000171"
            "051a636f6e66696775726174696f6e2f6361706162696c6974696573"
            "0000000100000002"
            "0f782d69676e6f72652d736861726564"
            "0a6d61707065642d72616d"
            "01000000010372616d0000000000000004"
            "0000000000001004");
}

TEST(QemuStreamTest, SendsSwitchoverStartWhereTheMachineDoes) {
  StreamFrame frame = ExampleFrame();
  ByteWriter without;
  AppendRamEnd(without, frame);
  EXPECT_EQ(ToHex(without.Take()), "030000000200000000000000107e00000002");
  frame.switchover_start = true;
  ByteWriter with;
  AppendRamEnd(with, frame);
  EXPECT_EQ(ToHex(with.Take()), "08000b0000030000000200000000000000107e00000002");
}

TEST(QemuStreamTest, RecordHeadHoldsOffsetFlagsAndName) {
  EXPECT_EQ(ToHex(MakeRecordHead("rom", PageIndex{0}, false, false).bytes()), "000000000000000203726f6d");
  EXPECT_EQ(ToHex(MakeRecordHead("rom", PageIndex{5}, true, false).bytes()), "000000000000500803726f6d");
  EXPECT_EQ(ToHex(MakeRecordHead("rom", PageIndex{0x100000}, true, true).bytes()), "0000000100000028");
  EXPECT_EQ(ToHex(MakeRecordHead("rom", PageIndex{1}, false, true).bytes()), "0000000000001022");
}

TEST(QemuStreamTest, RecordHeadHasRoomForTheLongestName) {
  const std::string name(255, 'x');
  const RecordHead head = MakeRecordHead(name, PageIndex{0}, true, false);
  EXPECT_EQ(head.size, kMaxRecordHeadBytes);
  EXPECT_EQ(ToHex(head.bytes().first(10)), "0000000000000008ff78");
  EXPECT_EQ(head.bytes().back(), std::byte{'x'});
}

TEST(QemuStreamTest, RecordLengthCountsNameAndContents) {
  EXPECT_EQ(PageRecordLength(6, true, false), 8U + 7 + 4096);
  EXPECT_EQ(PageRecordLength(6, true, true), 8U + 4096);
  EXPECT_EQ(PageRecordLength(6, false, false), 8U + 7 + 1);
  EXPECT_EQ(PageRecordLength(6, false, true), 9U);
  EXPECT_EQ(PageRecordLength(6, true, false), MakeRecordHead("pc.ram", PageIndex{0}, true, false).size + kPageBytes);
}

TEST(StreamEndTest, IsBehindTheVmDescription) {
  const Bytes state = Hex(golden::kDeviceState);
  EXPECT_EQ(FindStreamEnd(state), state.size());
}

TEST(StreamEndTest, LeavesOutWhatFollows) {
  const Bytes state = Hex(golden::kDeviceState);
  EXPECT_EQ(FindStreamEnd(Join({state, Bytes(3000), Hex(golden::kIntegrityTable)})), state.size());
  EXPECT_EQ(FindStreamEnd(Join({state, Hex("00")})), state.size());
}

TEST(StreamEndTest, IsNotFoundWithoutVmDescription) {
  EXPECT_EQ(FindStreamEnd({}), std::nullopt);
  EXPECT_EQ(FindStreamEnd(Hex("0000")), std::nullopt);
  EXPECT_EQ(FindStreamEnd(Hex("0006")), std::nullopt);
  EXPECT_EQ(FindStreamEnd(Hex("04112233000600000002")), std::nullopt);
}

TEST(StreamEndTest, PassesOverWhatOnlyLooksLikeOne) {
  const Bytes state = Hex(golden::kDeviceState);
  // Not JSON; longer than what is left; empty.
  EXPECT_EQ(FindStreamEnd(Join({Hex("0006000000027b7b"), state})), 8 + state.size());
  EXPECT_EQ(FindStreamEnd(Join({Hex("0006ffffffff7b7d"), state})), 8 + state.size());
  EXPECT_EQ(FindStreamEnd(Join({Hex("000600000000"), state})), 6 + state.size());
}

// A guest can put these bytes into a device's buffer (a disk's, a network card's). The description that ends where
// the file ends is the real one.
TEST(StreamEndTest, BytesThatAGuestPutIntoADeviceDoNotEndTheStream) {
  const Bytes state = Hex(golden::kDeviceState);
  const Bytes all = Join({Hex("0400000001"), Hex("0006000000027b7d"), Hex("77"), state});
  EXPECT_EQ(FindStreamEnd(all), all.size());
}

TEST(StreamEndTest, IsNotFoundInAnyTruncation) {
  const Bytes state = Hex(golden::kDeviceState);
  for (std::size_t length = 0; length < state.size(); ++length) {
    EXPECT_EQ(FindStreamEnd(std::span(state).first(length)), std::nullopt);
  }
}

}  // namespace
}  // namespace vmsave
