#include "qemu/qmp_message.h"

#include <gtest/gtest.h>

#include <chrono>

namespace vmsave {
namespace {

using std::chrono::microseconds;

TEST(EventTimeTest, IsWhatQemuWrites) {
  const auto event = ParseQmp(R"({"timestamp": {"seconds": 1690000000, "microseconds": 123456}, "event": "STOP"})");
  EXPECT_EQ(EventTime(event), microseconds(1690000000123456));
}

TEST(EventTimeTest, IsNotToldByAnEventOfAnotherShape) {
  for (const char* event : {"7", "{}", R"({"timestamp": 7})", R"({"timestamp": {}})",
                            R"({"timestamp": {"seconds": 1}})", R"({"timestamp": {"seconds": "1", "microseconds": 2}})",
                            R"({"timestamp": {"seconds": 1, "microseconds": 2.5}})",
                            R"({"timestamp": {"seconds": -1, "microseconds": -1}})",
                            R"({"timestamp": {"seconds": 1, "microseconds": 1000000}})",
                            R"({"timestamp": {"seconds": 18446744073709551615, "microseconds": 2}})"}) {
    EXPECT_EQ(EventTime(ParseQmp(event)), std::nullopt) << event;
  }
}

}  // namespace
}  // namespace vmsave
