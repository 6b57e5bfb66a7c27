#include "format/run_state.h"

#include <gtest/gtest.h>

#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

// As pc-i440fx-7.2 on QEMU 7.2 sends it: section 37, instance 0, version 1.
Bytes GlobalState(const std::string& state, std::uint8_t length) {
  Bytes runstate(100);
  Place(runstate, 0, ToBytes(state));
  return Join({Hex("04000000250b"), ToBytes("globalstate"), Hex("0000000000000001000000"), Bytes{std::byte{length}},
               runstate, Hex("7e00000025")});
}

Bytes GlobalState(const std::string& state) {
  return GlobalState(state, static_cast<std::uint8_t>(state.size() + 1));
}

const Bytes kOtherDevice = Join({Hex("04000000020574696d6572000000000000000200"), Bytes(24), Hex("7e00000002")});

TEST(RunStateTest, IsFoundAmongTheDevices) {
  for (const std::string state : {"running", "paused", "io-error"}) {
    EXPECT_EQ(RunStateIn(Join({kOtherDevice, GlobalState(state), kOtherDevice})), state);
  }
}

TEST(RunStateTest, IsNotToldByWhatOnlyNamesIt) {
  EXPECT_EQ(RunStateIn(kOtherDevice), std::nullopt);
  EXPECT_EQ(RunStateIn({}), std::nullopt);
  EXPECT_EQ(RunStateIn(ToBytes(R"({"name": "globalstate", "instance_id": 0, "vmsd_name": "globalstate"})")),
            std::nullopt);
  EXPECT_EQ(RunStateIn(Join({ToBytes("globalstate"), kOtherDevice})), std::nullopt);
}

TEST(RunStateTest, IsNotToldByASectionThatBreaksOff) {
  const Bytes whole = GlobalState("running");
  for (std::size_t length = 0; length < 37; ++length) {
    EXPECT_EQ(RunStateIn(std::span(whole).first(length)), std::nullopt) << length;
  }
}

TEST(RunStateTest, IsNotToldByAnImpossibleLength) {
  EXPECT_EQ(RunStateIn(GlobalState("running", 0)), std::nullopt);
  EXPECT_EQ(RunStateIn(GlobalState("running", 1)), std::nullopt);
  EXPECT_EQ(RunStateIn(GlobalState("running", 101)), std::nullopt);
}

// A guest can put bytes of its own into its devices.
TEST(RunStateTest, IsNotToldByTwoThatDiffer) {
  EXPECT_EQ(RunStateIn(Join({GlobalState("paused"), GlobalState("running")})), std::nullopt);
  EXPECT_EQ(RunStateIn(Join({GlobalState("running"), GlobalState("running")})), "running");
}

}  // namespace
}  // namespace vmsave
