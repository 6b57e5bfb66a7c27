#include "format/work_plan.h"

#include <gtest/gtest.h>

#include "format/integrity_table.h"

namespace vmsave {
namespace {

TEST(WorkPlanTest, CutsEachBlockIntoChunksOfItsOwn) {
  const WorkPlan plan({2 * kWorkPages + 1, 1, kWorkPages});
  ASSERT_EQ(plan.chunk_count(), 5U);
  EXPECT_EQ(plan.length(), ByteCount{(3 * kWorkPages + 2) * kPageBytes});
  EXPECT_EQ(plan.chunk(1).block, 0U);
  EXPECT_EQ(plan.chunk(1).first_page, kWorkPages);
  EXPECT_EQ(plan.chunk(1).end_page, 2 * kWorkPages);
  EXPECT_EQ(plan.chunk(2).pages(), 1U);
  EXPECT_EQ(plan.chunk(3).block, 1U);
  EXPECT_EQ(plan.chunk(3).length(), kPageSize);
  EXPECT_EQ(plan.chunk(4).block, 2U);
  EXPECT_EQ(plan.chunk(4).pages(), kWorkPages);
}

TEST(WorkPlanTest, CoversEveryPageOnceInOrder) {
  const std::vector<std::uint64_t> pages{1, kWorkPages - 1, kWorkPages, kWorkPages + 1, 5 * kWorkPages, 63};
  const WorkPlan plan(pages);
  std::vector<std::uint64_t> covered(pages.size());
  for (std::uint64_t number = 0; number < plan.chunk_count(); ++number) {
    const WorkChunk chunk = plan.chunk(number);
    ASSERT_EQ(chunk.first_page, covered[chunk.block]) << number;
    ASSERT_GT(chunk.pages(), 0U);
    ASSERT_LE(chunk.pages(), kWorkPages);
    covered[chunk.block] = chunk.end_page;
  }
  EXPECT_EQ(covered, pages);
}

TEST(WorkPlanTest, PassesOverABlockWithoutPages) {
  const WorkPlan plan({0, 3, 0, 0, 2});
  ASSERT_EQ(plan.chunk_count(), 2U);
  EXPECT_EQ(plan.chunk(0).block, 1U);
  EXPECT_EQ(plan.chunk(1).block, 4U);
}

TEST(WorkPlanTest, OfNothingHasNoChunk) {
  EXPECT_EQ(WorkPlan({}).chunk_count(), 0U);
  EXPECT_EQ(WorkPlan({0}).chunk_count(), 0U);
}

TEST(WorkPlanTest, NeverSplitsAHashedChunkOrABitmapWord) {
  EXPECT_EQ(kWorkPages % kPagesPerChunk, 0U);
  EXPECT_EQ(kWorkPages % 64, 0U);
}

}  // namespace
}  // namespace vmsave
