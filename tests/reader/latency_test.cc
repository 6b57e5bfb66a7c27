#include "reader/latency.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

using Duration = LatencyCount::Duration;

TEST(LatencyCountTest, QuantilesAreAtMostAnEighthTooLong) {
  LatencyCount latency;
  for (int us = 1; us <= 10000; ++us) latency.Add(Duration{us});
  for (const double share : {0.01, 0.5, 0.99}) {
    const auto exact = static_cast<Duration::rep>(share * 10000);
    EXPECT_GE(latency.Quantile(share).count(), exact);
    EXPECT_LE(latency.Quantile(share).count(), exact + exact / 8 + 1);
  }
  EXPECT_EQ(latency.most(), Duration{10000});
  EXPECT_EQ(latency.Quantile(1), Duration{10000});
}

TEST(LatencyCountTest, NothingTookNoTime) {
  EXPECT_EQ(LatencyCount().Quantile(0.99), Duration{0});
}

TEST(LatencyCountTest, TheLongestTimeHasAPlace) {
  LatencyCount latency;
  latency.Add(Duration::max());
  EXPECT_EQ(latency.count(), 1U);
  EXPECT_GT(latency.Quantile(0.99), std::chrono::hours(24));
}

}  // namespace
}  // namespace vmsave
