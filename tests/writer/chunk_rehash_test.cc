#include "writer/chunk_rehash.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "reader/image.h"
#include "tests/scratch_directory.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"
#include "tests/writer/small_guest.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kUntouched = 77;

class ChunkRehashTest : public testing::TestWithParam<IoWay> {
 protected:
  void SetUp() override {
    if (const std::string reason = ReasonAgainst(GetParam(), directory_); !reason.empty()) GTEST_SKIP() << reason;
  }

  // Hashes of the image's chunks as its file has them; kUntouched for those that are not wanted.
  std::vector<std::vector<std::uint64_t>> Hash(const Image& image, const ChunkFilter& wanted,
                                               const Interrupt& interrupt = Interrupt()) {
    std::vector<std::vector<std::uint64_t>> hashes;
    for (const StreamBlock& block : image.contents().blocks) hashes.emplace_back(ChunkCount(block.length), kUntouched);
    std::vector<WrittenBlock> blocks;
    for (std::size_t i = 0; i < hashes.size(); ++i) {
      const StreamBlock& block = image.contents().blocks[i];
      blocks.push_back({block.mapped_ram->pages_offset, &block.present, hashes[i]});
    }
    const auto [engine, cache, channels] = GetParam();
    const FileDescriptor pages = image.OpenForPages(cache);
    HashWrittenChunks(pages, blocks, wanted, {channels, engine, true}, progress_, interrupt);
    return hashes;
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  Progress progress_;
};

TEST_P(ChunkRehashTest, MakesTheHashesOfAllChunksFromTheFile) {
  for (const std::uint64_t pages : {1U, 16U, 255U, 257U, 725U}) {
    const SmallGuest guest({{"pc.ram", pages}, {"x", 1}, {"vga.vram", 300}}, pages);
    SaveImage(path_, guest.image(), 3);
    const Image image(path_);
    const auto hashes = Hash(image, [](std::size_t, std::uint64_t) { return true; });
    for (std::size_t block = 0; block < hashes.size(); ++block) {
      EXPECT_EQ(hashes[block], image.integrity()->blocks[block].chunk_hashes) << pages << ":" << block;
    }
    EXPECT_EQ(progress_.phase(), "reading back for checksums");
    EXPECT_EQ(progress_.total(), PagesToBytes(PageIndex{guest.CountPresent()}));
    EXPECT_EQ(progress_.done(), progress_.total());
  }
}

TEST_P(ChunkRehashTest, LeavesOtherChunksAlone) {
  const SmallGuest guest;
  SaveImage(path_, guest.image(), 3);
  const Image image(path_);
  const auto wanted = [](std::size_t block, std::uint64_t chunk) { return block == 2 || chunk % 3 == 1; };
  const auto hashes = Hash(image, wanted);
  for (std::size_t block = 0; block < hashes.size(); ++block) {
    for (std::uint64_t chunk = 0; chunk < hashes[block].size(); ++chunk) {
      const std::uint64_t right = image.integrity()->blocks[block].chunk_hashes[chunk];
      EXPECT_EQ(hashes[block][chunk], wanted(block, chunk) ? right : kUntouched) << block << ":" << chunk;
    }
  }
  EXPECT_EQ(progress_.done(), progress_.total());
}

TEST_P(ChunkRehashTest, ReadsNothingWhereNothingIsWanted) {
  const SmallGuest guest;
  SaveImage(path_, guest.image(), 3);
  Hash(Image(path_), [](std::size_t, std::uint64_t) { return false; });
  EXPECT_EQ(progress_.phase(), "starting");
}

TEST_P(ChunkRehashTest, StopsWhenInterrupted) {
  const SmallGuest guest;
  SaveImage(path_, guest.image(), 3);
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  EXPECT_THROW(Hash(
                   Image(path_), [](std::size_t, std::uint64_t) { return true; }, requested),
               Error);
}

INSTANTIATE_TEST_SUITE_P(Ways, ChunkRehashTest, kAllIoWays, IoWayName);

}  // namespace
}  // namespace vmsave
