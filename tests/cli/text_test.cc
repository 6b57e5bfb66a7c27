#include "cli/text.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

TEST(TextTest, BytesHaveTheUnitThatKeepsThemShort) {
  EXPECT_EQ(FormatBytes(ByteCount{0}), "0 bytes");
  EXPECT_EQ(FormatBytes(ByteCount{1023}), "1023 bytes");
  EXPECT_EQ(FormatBytes(ByteCount{1024}), "1.0 KiB");
  EXPECT_EQ(FormatBytes(ByteCount{1536}), "1.5 KiB");
  EXPECT_EQ(FormatBytes(ByteCount{(1 << 20) - 1}), "1.0 MiB");
  EXPECT_EQ(FormatBytes(ByteCount{std::uint64_t{4} << 30}), "4.0 GiB");
  EXPECT_EQ(FormatBytes(ByteCount{~std::uint64_t{0}}), "16384.0 PiB");
}

TEST(TextTest, PartHasTheUnitOfTheWhole) {
  EXPECT_EQ(FormatPart(ByteCount{512 << 20}, ByteCount{std::uint64_t{4} << 30}), "0.5 of 4.0 GiB");
  EXPECT_EQ(FormatPart(ByteCount{7}, ByteCount{1000}), "7 of 1000 bytes");
}

TEST(TextTest, RateOfNoTimeIsNotANumber) {
  EXPECT_EQ(FormatRate(ByteCount{1 << 20}, 0.5), "2.0 MiB/s");
  EXPECT_EQ(FormatRate(ByteCount{1 << 20}, 0), "-");
}

TEST(TextTest, LongTimesAreToldInMinutes) {
  EXPECT_EQ(FormatSeconds(0.0073), "7 ms");
  EXPECT_EQ(FormatSeconds(1.614), "1.61 s");
  EXPECT_EQ(FormatSeconds(125), "2 min 5 s");
}

TEST(TextTest, SizesArePowersOf1024) {
  EXPECT_EQ(ParseBytes("4096", "SIZE").value(), 4096U);
  EXPECT_EQ(ParseBytes("64k", "SIZE").value(), 64U << 10);
  EXPECT_EQ(ParseBytes("512M", "SIZE").value(), 512U << 20);
  EXPECT_EQ(ParseBytes("2G", "SIZE").value(), std::uint64_t{2} << 30);
  EXPECT_EQ(ParseBytes("1TiB", "SIZE").value(), std::uint64_t{1} << 40);
}

TEST(TextTest, WhatIsNoSizeIsAUsageErrorThatQuotesIt) {
  for (const char* text : {"", "x", "2Q", "1.5G", "-", "-5", "-1K", "99999999999999999999", "99999999T"}) {
    try {
      ParseBytes(text, "--synthetic");
      ADD_FAILURE() << text << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find(std::string("\"") + text + "\""), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace vmsave
