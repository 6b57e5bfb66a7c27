#include "reader/next_demands.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace vmsave {
namespace {

constexpr std::uint64_t kStep = 16;

WorkChunk ChunkOf(std::uint64_t number, std::size_t block = 0) {
  return {block, number * kStep, (number + 1) * kStep};
}

class NextDemandsTest : public testing::Test {
 protected:
  // Chunks to be read ahead behind this one, which is sent then, as they are.
  std::uint64_t AheadOf(std::uint64_t number, std::size_t block = 0) {
    const auto [passed, ahead] = next_demands_.After(ChunkOf(number, block));
    if (passed) passed_.push_back(*passed);
    left_[block].erase(number);
    if (!ahead) return 0;
    EXPECT_EQ(ahead->block, block);
    EXPECT_EQ(ahead->first_page, (number + 1) * kStep);
    std::erase_if(left_[block], [&](std::uint64_t other) { return other > number && other * kStep < ahead->end_page; });
    return ahead->end_page / kStep - number - 1;
  }

  std::vector<std::uint64_t> AheadOfEach(const std::vector<std::uint64_t>& numbers) {
    std::vector<std::uint64_t> ahead;
    for (const std::uint64_t number : numbers) ahead.push_back(AheadOf(number));
    return ahead;
  }

  void Leave(std::size_t block, std::uint64_t first, std::uint64_t end, std::uint64_t step = 1) {
    for (std::uint64_t number = first; number < end; number += step) left_[block].insert(number);
  }

  std::map<std::size_t, std::set<std::uint64_t>> left_;
  std::vector<WorkChunk> passed_;
  NextDemands next_demands_{
      [this](std::size_t block, std::uint64_t from, std::uint64_t to) -> std::optional<WorkChunk> {
        const auto next = left_[block].lower_bound(from / kStep);
        if (next == left_[block].end() || *next * kStep >= to) return std::nullopt;
        return ChunkOf(*next, block);
      }};
};

using Counts = std::vector<std::uint64_t>;

TEST_F(NextDemandsTest, NothingIsAheadOfAGuestThatJumps) {
  Leave(0, 0, 10000);
  EXPECT_EQ(AheadOfEach({7, 100, 3, 2000, 50, 4000}), Counts(6, 0));
}

TEST_F(NextDemandsTest, NeighboursThatAreFewAreChance) {
  Leave(0, 0, 10000);
  EXPECT_EQ(AheadOfEach({7, 8, 9, 100, 101, 102, 500}), Counts(7, 0));
}

TEST_F(NextDemandsTest, ReadsAsFarAheadAsTheGuestHasCome) {
  Leave(0, 0, 10000);
  EXPECT_EQ(AheadOfEach({10, 11, 12, 13, 18, 28, 48}), (Counts{0, 0, 0, 4, 9, 19, 39}));
}

TEST_F(NextDemandsTest, ReadsNoMoreAheadThan8MiB) {
  Leave(0, 0, 100000);
  std::uint64_t next = 0;
  std::uint64_t most = 0;
  for (int question = 0; question < 20; ++question) {
    const std::uint64_t ahead = AheadOf(next);
    most = std::max(most, ahead);
    next += ahead + 1;
  }
  EXPECT_EQ(most, 128U);
}

TEST_F(NextDemandsTest, WhatHasBeenSentOrIsAbsentIsPassed) {
  Leave(0, 0, 10000, 3);
  EXPECT_EQ(AheadOfEach({0, 3, 6, 9}), (Counts{0, 0, 0, 12}));
}

TEST_F(NextDemandsTest, WhatIsLeftInBetweenMeansThatTheGuestDoesNotGoInOrder) {
  Leave(0, 0, 10000);
  EXPECT_EQ(AheadOfEach({0, 2, 4, 6, 8, 10}), Counts(6, 0));
}

TEST_F(NextDemandsTest, WhatLiesFarBehindMayBeChance) {
  Leave(0, 0, 10000, 1026);
  EXPECT_EQ(AheadOfEach({0, 1026, 2052, 3078, 4104}), Counts(5, 0));
}

TEST_F(NextDemandsTest, FollowsSeveralProcessorsAndBlocks) {
  Leave(0, 0, 10000);
  Leave(1, 0, 10000);
  EXPECT_EQ(AheadOfEach({10, 500, 11, 501, 12, 502}), Counts(6, 0));
  for (const std::uint64_t number : {10, 11, 12}) EXPECT_EQ(AheadOf(number, 1), 0U);
  EXPECT_EQ(AheadOf(13), 4U);
  EXPECT_EQ(AheadOf(503), 4U);
  EXPECT_EQ(AheadOf(13, 1), 4U);
}

TEST_F(NextDemandsTest, GuestThatIsFasterThanTheDiskGoesOnWhereTheReadingEnds) {
  Leave(0, 0, 10000);
  EXPECT_EQ(AheadOfEach({10, 11, 12, 13}), (Counts{0, 0, 0, 4}));
  Leave(0, 14, 18);
  EXPECT_EQ(AheadOf(14), 0U);
  Leave(0, 14, 18);
  EXPECT_EQ(AheadOf(16), 0U);
  left_[0].erase(left_[0].begin(), left_[0].lower_bound(18));
  EXPECT_EQ(AheadOf(18), 9U);
}

TEST_F(NextDemandsTest, WhatWasAheadIsPassedOnceTheGuestAsksBehindIt) {
  Leave(0, 0, 10000);
  AheadOfEach({10, 11, 12, 13});
  EXPECT_TRUE(passed_.empty());
  AheadOfEach({500, 18});
  ASSERT_EQ(passed_.size(), 1U);
  EXPECT_EQ(passed_[0], (WorkChunk{0, 14 * kStep, 18 * kStep}));
}

TEST_F(NextDemandsTest, JumpsOfAnotherProcessorDoNotMakeItForgetOneThatGoesInOrder) {
  Leave(0, 0, 100000);
  EXPECT_EQ(AheadOfEach({10, 11, 12, 13}), (Counts{0, 0, 0, 4}));
  for (std::uint64_t jump = 0; jump < 1000; ++jump) EXPECT_EQ(AheadOf(1000 + 2 * jump), 0U);
  EXPECT_EQ(AheadOf(18), 9U);
}

TEST_F(NextDemandsTest, WhatLiesFarAheadIsNotReadAhead) {
  Leave(0, 0, 14);
  Leave(0, 14 + 1024, 2000);
  EXPECT_EQ(AheadOfEach({10, 11, 12, 13}), Counts(4, 0));
}

TEST_F(NextDemandsTest, EndsWithTheBlock) {
  Leave(0, 0, 15);
  EXPECT_EQ(AheadOfEach({10, 11, 12, 13}), (Counts{0, 0, 0, 1}));
  EXPECT_EQ(AheadOfEach({0, 1, 2}), Counts(3, 0));
}

}  // namespace
}  // namespace vmsave
