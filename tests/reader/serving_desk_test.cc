#include "reader/serving_desk.h"

#include <gtest/gtest.h>

#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

constexpr std::size_t kFillBuffers = 8;

class ServingDeskTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteCopy(path_, guest_, Copy::kVersion3);
    image_.emplace(path_);
    for (const StreamBlock& block : image_->contents().blocks) blocks_.push_back({block.name, block.length, kPageSize});
  }

  void Open(const std::deque<WorkChunk>& expected = {}, const FillOptions& fill = {}) {
    desk_.emplace(*image_, blocks_, fill, kFillBuffers, std::vector<PageBitmap>(), expected);
  }

  // First pages of the chunks of a block that have something present.
  std::vector<std::uint64_t> PresentChunks(std::size_t block) const {
    const PageBitmap& present = image_->contents().blocks[block].present;
    std::vector<std::uint64_t> chunks;
    for (std::uint64_t page = 0; page < present.pages(); page += kPagesPerChunk) {
      const std::uint64_t end = std::min(page + kPagesPerChunk, present.pages());
      if (present.NextPresent(page, end)) chunks.push_back(page);
    }
    return chunks;
  }

  // The guest asks for a present page of that chunk, and gets the chunk.
  void AskAndServe(std::size_t block, std::uint64_t chunk) {
    const PageBitmap& present = image_->contents().blocks[block].present;
    desk_->Ask({.block = block, .pages = {present.NextPresent(chunk, present.pages())->first, 1}});
    const std::optional<WorkChunk> demand = desk_->TakeDemand();
    desk_->PutDemanded({*demand, AlignedBuffer(demand->length().value())});
    EXPECT_TRUE(desk_->NextToSend());
  }

  void AskForAPresentPage() {
    const auto present = image_->contents().blocks[0].present.NextPresent(0, blocks_[0].pages());
    desk_->Ask({.block = 0, .pages = {present->first, 1}});
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
  std::optional<Image> image_;
  std::vector<PostcopyBlock> blocks_;
  std::optional<ServingDesk> desk_;
};

TEST_F(ServingDeskTest, ChannelsFillAtOnceWhileTheGuestDoesNotAsk) {
  Open();
  EXPECT_TRUE(desk_->TakeFill(/*wait=*/false));
  EXPECT_TRUE(desk_->TakeFill(/*wait=*/false));
}

TEST_F(ServingDeskTest, WhileTheGuestWaitsOneChannelFillsAtMost) {
  Open();
  AskForAPresentPage();
  std::optional<ReadPages> first = desk_->TakeFill(/*wait=*/false);
  ASSERT_TRUE(first);
  EXPECT_FALSE(desk_->TakeFill(/*wait=*/false));
  ASSERT_TRUE(desk_->TakeDemand());
  EXPECT_FALSE(desk_->TakeFill(/*wait=*/false));
  desk_->PutFilled(*std::move(first));
  EXPECT_TRUE(desk_->TakeFill(/*wait=*/true));
}

TEST_F(ServingDeskTest, OnceTheGuestIsQuietAllChannelsFill) {
  Open();
  AskForAPresentPage();
  const std::optional<WorkChunk> demanded = desk_->TakeDemand();
  ASSERT_TRUE(demanded);
  desk_->PutDemanded({*demanded, AlignedBuffer(demanded->length().value())});
  EXPECT_TRUE(desk_->TakeFill(/*wait=*/true));
  EXPECT_TRUE(desk_->TakeFill(/*wait=*/true));
}

TEST_F(ServingDeskTest, WhatTheGuestIsExpectedToAskForDoesNotGiveWay) {
  const auto present = image_->contents().blocks[1].present.NextPresent(0, blocks_[1].pages());
  const WorkChunk expected{1, present->first, present->first + 1};
  Open({expected, expected});
  AskForAPresentPage();
  const std::optional<ReadPages> one = desk_->TakeFill(/*wait=*/false);
  const std::optional<ReadPages> other = desk_->TakeFill(/*wait=*/false);
  ASSERT_TRUE(one && other);
  EXPECT_EQ(one->chunk, expected);
  EXPECT_EQ(other->chunk, expected);
  EXPECT_FALSE(desk_->TakeFill(/*wait=*/false));
}

TEST_F(ServingDeskTest, BesideWhatTheGuestWaitsForLittleIsReadAtOnce) {
  const auto present = image_->contents().blocks[1].present.NextPresent(0, blocks_[1].pages());
  Open(std::deque<WorkChunk>(kFillBuffers, {1, present->first, present->first + 1}));
  AskForAPresentPage();
  int at_once = 0;
  while (desk_->TakeFill(/*wait=*/false)) ++at_once;
  EXPECT_EQ(at_once, 4);
}

TEST_F(ServingDeskTest, WhatFollowsIsReadAheadOfAGuestThatGoesInOrder) {
  const std::vector<std::uint64_t> chunks = PresentChunks(0);
  ASSERT_GE(chunks.size(), 6U);
  Open();
  for (int i = 0; i < 3; ++i) AskAndServe(0, chunks[i]);
  const std::optional<ReadPages> unasked = desk_->TakeFill(/*wait=*/true);
  ASSERT_TRUE(unasked);
  AskAndServe(0, chunks[3]);
  const std::optional<ReadPages> ahead = desk_->TakeFill(/*wait=*/false);
  ASSERT_TRUE(ahead) << "it does not give way";
  EXPECT_EQ(ahead->chunk.block, 0U);
  EXPECT_EQ(ahead->chunk.first_page, chunks[4]);
}

TEST_F(ServingDeskTest, WithoutFillingNothingIsReadAhead) {
  const std::vector<std::uint64_t> chunks = PresentChunks(0);
  FillOptions fill;
  fill.on = false;
  Open({}, fill);
  for (int i = 0; i < 5; ++i) AskAndServe(0, chunks[i]);
  EXPECT_EQ(desk_->NeededFirst().size(), 5U);
}

}  // namespace
}  // namespace vmsave
