#include "reader/fill_order.h"

#include <gtest/gtest.h>

#include <array>

namespace vmsave {
namespace {

using Place = std::array<std::uint64_t, 3>;  // block, first page, end page

std::vector<Place> Rest(FillOrder& order) {
  std::vector<Place> places;
  while (const auto chunk = order.Next()) places.push_back({chunk->block, chunk->first_page, chunk->end_page});
  return places;
}

WorkPlan Plan() {
  return WorkPlan({2 * kWorkPages, kWorkPages + 1});
}

TEST(FillOrderTest, GoesThroughAllBlocksAsTheyLie) {
  FillOrder order(Plan());
  EXPECT_EQ(Rest(order), (std::vector<Place>{{0, 0, 256}, {0, 256, 512}, {1, 0, 256}, {1, 256, 257}}));
}

TEST(FillOrderTest, WhatWasAskedForLastComesFirst) {
  FillOrder order(Plan());
  order.Prefer(0, 300);
  order.Prefer(1, 256);
  EXPECT_EQ(Rest(order), (std::vector<Place>{{1, 256, 257}, {0, 256, 512}, {0, 0, 256}, {1, 0, 256}}));
}

TEST(FillOrderTest, WhatIsAskedForManyTimesLeavesItsPlaceToOthers) {
  FillOrder order(Plan());
  order.Prefer(0, 300);
  for (int i = 0; i < 1000; ++i) order.Prefer(1, 0);
  EXPECT_EQ(Rest(order), (std::vector<Place>{{1, 0, 256}, {0, 256, 512}, {0, 0, 256}, {1, 256, 257}}));
}

TEST(FillOrderTest, WhatHasComeIsNotPreferredAgain) {
  FillOrder order(Plan());
  order.Next();
  order.Prefer(0, 0);
  EXPECT_EQ(order.Next()->first_page, 256U);
}

TEST(FillOrderTest, ExpectedChunksComeBeforeAllOthers) {
  FillOrder order(Plan(), {{1, 16, 32}, {0, 0, 16}});
  order.Prefer(1, 256);
  EXPECT_TRUE(order.IsNextExpected());
  const std::vector<Place> places = Rest(order);
  EXPECT_FALSE(order.IsNextExpected());
  ASSERT_EQ(places.size(), 6U);
  EXPECT_EQ(places[0], (Place{1, 16, 32}));
  EXPECT_EQ(places[1], (Place{0, 0, 16}));
  EXPECT_EQ(places[2], (Place{1, 256, 257}));
}

TEST(FillOrderTest, WhatIsExpectedLaterComesBeforeAllOthers) {
  FillOrder order(Plan(), {{1, 16, 32}});
  order.Expect({0, 64, 128});
  EXPECT_EQ(order.Next(), (WorkChunk{0, 64, 128}));
  EXPECT_EQ(order.Next(), (WorkChunk{1, 16, 32}));
  EXPECT_FALSE(order.IsNextExpected());
}

TEST(FillOrderTest, RestOfWhatIsExpectedIsExpected) {
  FillOrder order(Plan(), {{1, 16, 32}, {0, 0, 16}});
  order.Next();
  order.PutBack({1, 24, 32});
  order.Expect({0, 64, 128});
  EXPECT_EQ(order.Next(), (WorkChunk{0, 64, 128}));
  EXPECT_EQ(order.Next(), (WorkChunk{1, 24, 32}));
  EXPECT_TRUE(order.IsNextExpected());
}

TEST(FillOrderTest, RestOfOthersComesBehindWhatIsExpected) {
  FillOrder order(Plan());
  order.Next();
  order.PutBack({0, 100, 256});
  EXPECT_FALSE(order.IsNextExpected());
  order.Prefer(1, 256);
  order.Expect({0, 300, 310});
  EXPECT_EQ(order.Next(), (WorkChunk{0, 300, 310}));
  EXPECT_EQ(order.Next(), (WorkChunk{0, 100, 256}));
  EXPECT_EQ(order.Next(), (WorkChunk{1, 256, 257}));
}

}  // namespace
}  // namespace vmsave
