#include "format/units.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

TEST(UnitsTest, QuantitiesOfDifferentKindsDoNotMix) {
  EXPECT_FALSE((std::is_convertible_v<FileOffset, ByteCount>));
  EXPECT_FALSE((std::is_convertible_v<std::uint64_t, ByteCount>));
  EXPECT_FALSE((std::is_convertible_v<PageIndex, GuestAddress>));
}

TEST(UnitsTest, AddsAndSubtracts) {
  EXPECT_EQ(FileOffset{92} + ByteCount{8}, FileOffset{100});
  EXPECT_EQ(FileOffset{100} - FileOffset{92}, ByteCount{8});
  EXPECT_EQ(ByteCount{5} - ByteCount{5}, ByteCount{0});
  ByteCount count{1};
  count += ByteCount{2};
  EXPECT_EQ(count, ByteCount{3});
  FileOffset offset{1};
  offset += ByteCount{2};
  EXPECT_EQ(offset, FileOffset{3});
}

TEST(UnitsTest, RefusesResultsThatDoNotFit) {
  ExpectDamaged([] { (void)(FileOffset{kMax} + ByteCount{1}); }, "out of range");
  ExpectDamaged([] { (void)(ByteCount{kMax} + ByteCount{1}); }, "out of range");
  ExpectDamaged([] { (void)(ByteCount{1} - ByteCount{2}); }, "out of range");
  ExpectDamaged([] { (void)(FileOffset{1} - FileOffset{2}); }, "out of range");
  ExpectDamaged([] { CheckedMultiply(kMax / 8 + 1, 8); }, "out of range");
  EXPECT_EQ(CheckedAdd(kMax - 1, 1), kMax);
  EXPECT_EQ(CheckedSubtract(7, 7), 0U);
  EXPECT_EQ(CheckedMultiply(kMax / 8, 8), kMax - 7);
}

TEST(UnitsTest, RoundsToMultiples) {
  EXPECT_EQ(RoundUp(0, 4096), 0U);
  EXPECT_EQ(RoundUp(1, 4096), 4096U);
  EXPECT_EQ(RoundUp(4096, 4096), 4096U);
  EXPECT_EQ(RoundDown(4095, 4096), 0U);
  EXPECT_EQ(RoundDown(8191, 4096), 4096U);
  EXPECT_EQ(RoundUp(kMax - 4095, 4096), kMax - 4095);
}

TEST(UnitsTest, RefusesToRoundUpPastTheEnd) {
  ExpectDamaged([] { RoundUp(kMax - 4094, 4096); }, "out of range");
}

TEST(UnitsTest, CountsBytesOfPages) {
  EXPECT_EQ(PagesToBytes(PageIndex{3}), ByteCount{12288});
}

}  // namespace
}  // namespace vmsave
