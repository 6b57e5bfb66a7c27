#include "reader/working_set_file.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <sstream>

#include "reader/image_identity.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

class WorkingSetFileTest : public testing::Test {
 protected:
  void SetUp() override { WriteCopy(path_, guest_, Copy::kVersion3); }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
};

TEST_F(WorkingSetFileTest, WhatWasDemandedComesBackInItsOrder) {
  const Image image(path_);
  EXPECT_FALSE(ReadWorkingSet(image));
  WriteWorkingSet(image, Extended(image, std::nullopt, {{0, 32, 48}, {0, 48, 64}, {1, 0, 16}, {0, 32, 48}}));
  const WorkingSet set = ReadWorkingSet(image).value();
  EXPECT_EQ(set.runs, (std::vector<ChunkRun>{{0, 2, 2}, {1, 1, 0}}));
  const std::deque<WorkChunk> chunks = ChunksOf(image, set);
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_EQ(chunks[0].first_page, 32U);
  EXPECT_EQ(chunks[0].end_page, 64U);
}

TEST_F(WorkingSetFileTest, WhatIsKnownStaysInFrontOfWhatIsNew) {
  const Image image(path_);
  const WorkingSet known = Extended(image, std::nullopt, {{1, 0, 16}});
  EXPECT_EQ(Extended(image, known, {{0, 0, 16}, {1, 0, 16}}).runs, (std::vector<ChunkRun>{{1, 1, 0}, {0, 1, 0}}));
}

TEST_F(WorkingSetFileTest, ChunksEndWithTheirBlock) {
  const Image image(path_);
  const std::uint64_t pages = image.contents().blocks[0].pages();
  const std::uint64_t last = (pages - 1) / kPagesPerChunk;
  const WorkingSet set{ImageIdentity(image), {{0, 1, last}}};
  EXPECT_EQ(ChunksOf(image, set).back().end_page, pages);
}

TEST_F(WorkingSetFileTest, OfAnotherSaveItIsRefused) {
  const Image image(path_);
  WriteWorkingSet(image, {ImageIdentity(image) + 1, {}});
  ExpectDamaged([&] { ReadWorkingSet(image); }, "of another save");
}

TEST_F(WorkingSetFileTest, WhatTheImageHasNotIsRefused) {
  const Image image(path_);
  const auto blocks = static_cast<std::uint32_t>(image.contents().blocks.size());
  const std::uint64_t chunks = ChunkCount(image.contents().blocks[0].length);
  for (const ChunkRun run : {ChunkRun{blocks, 1, 0}, ChunkRun{0, 1, chunks}, ChunkRun{0, 0, 0},
                             ChunkRun{0, 2, chunks - 1}, ChunkRun{0, 1, ~std::uint64_t{0}}}) {
    WriteWorkingSet(image, {ImageIdentity(image), {run}});
    ExpectDamaged([&] { ReadWorkingSet(image); }, "that the image has not");
  }
}

TEST_F(WorkingSetFileTest, NamingTheSamePagesAgainAndAgainIsRefused) {
  const Image image(path_);
  const std::uint64_t chunks = ChunkCount(image.contents().blocks[0].length);
  WriteWorkingSet(image,
                  {ImageIdentity(image), std::vector<ChunkRun>(1000, {0, static_cast<std::uint32_t>(chunks), 0})});
  ExpectDamaged([&] { ReadWorkingSet(image); }, "more pages than the image has");
}

TEST_F(WorkingSetFileTest, ReplacesNothingButWorkingSets) {
  const Image image(path_);
  const std::string path = WorkingSetPath(image);
  WriteWorkingSet(image, {ImageIdentity(image), {{0, 1, 0}}});
  Overwrite(path, FileOffset{30}, Hex("ff"));              // damaged
  WriteWorkingSet(image, {ImageIdentity(image) + 1, {}});  // of another save
  EXPECT_NO_THROW(WriteWorkingSet(image, {ImageIdentity(image), {}}));

  Overwrite(path, FileOffset{8}, Hex("02"));  // of a version to come
  EXPECT_THROW(WriteWorkingSet(image, {ImageIdentity(image), {}}), Error);
  for (const std::string_view other : {"", "a note", "a note that is longer than the head of a working set"}) {
    std::ofstream(path, std::ios::trunc) << other;
    EXPECT_THROW(WriteWorkingSet(image, {ImageIdentity(image), {}}), Error);
    std::ostringstream left;
    left << std::ifstream(path).rdbuf();
    EXPECT_EQ(left.str(), other);
  }
}

TEST_F(WorkingSetFileTest, CopiesAndConversionsHaveTheSameIdentity) {
  const std::string sparse = directory_.Path("sparse.sav");
  WriteCopy(sparse, guest_, Copy::kLibvirtSparse);
  EXPECT_EQ(ImageIdentity(Image(path_)), ImageIdentity(Image(sparse)));
  SmallGuest other;
  std::vector<std::byte> device_state = MakeDeviceState();
  device_state[20] ^= std::byte{1};
  other.image().device_state = device_state;
  const std::string another = directory_.Path("another.sav");
  WriteCopy(another, other, Copy::kVersion3);
  EXPECT_NE(ImageIdentity(Image(path_)), ImageIdentity(Image(another)));
}

}  // namespace
}  // namespace vmsave
