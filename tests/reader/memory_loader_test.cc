#include "reader/memory_loader.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "io/sparse_file.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

// Memory for a guest's blocks, full of other bytes than the guest's.
class Targets {
 public:
  enum class Backing { kNone, kMemoryFile, kFile };

  Targets(const GuestImage& guest, Backing backing, const ScratchDirectory& directory) {
    for (const RamBlock& block : guest.blocks) Add(block, backing, directory);
  }

  const std::vector<LoadTarget>& all() const { return targets_; }

  void ExpectEqual(const GuestImage& guest) const {
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      EXPECT_TRUE(std::ranges::equal(targets_[i].memory, guest.blocks[i].memory)) << guest.blocks[i].name;
    }
  }

  // Absent pages have no storage.
  void ExpectHoles(const SmallGuest& guest) const {
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      for (std::uint64_t page = 0; page < guest.image().blocks[i].pages(); ++page) {
        const FileOffset at = targets_[i].backing_start + PagesToBytes(PageIndex{page});
        ASSERT_EQ(NextData(*targets_[i].backing, at, at + kPageSize).has_value(), guest.IsPresent(i, page))
            << i << ":" << page;
      }
    }
  }

  // What lies beside the blocks in their files is as it was.
  void ExpectUnchangedBeside() const {
    const Bytes wanted(kPageBytes, kGarbage);
    for (const LoadTarget& target : targets_) {
      Bytes beside(kPageBytes);
      ReadAt(*target.backing, beside, FileOffset{kStart.value() - kPageBytes});
      EXPECT_EQ(beside, wanted);
      ReadAt(*target.backing, beside, target.backing_start + ByteCount{target.memory.size()});
      EXPECT_EQ(beside, wanted);
    }
  }

 private:
  static constexpr std::byte kGarbage{0xee};
  static constexpr FileOffset kStart{3 * kPageBytes};

  void Add(const RamBlock& block, Backing backing, const ScratchDirectory& directory) {
    if (backing == Backing::kNone) {
      memories_.push_back(MemoryMapping::Anonymous(block.length()));
      std::ranges::fill(memories_.back().bytes(), kGarbage);
      targets_.push_back({memories_.back().bytes(), nullptr, {}});
      return;
    }
    const ByteCount length = kStart + block.length() + kPageSize - FileOffset{0};
    const std::string path = directory.Path(block.name);
    files_.push_back(backing == Backing::kFile ? OpenFile(path, O_RDWR | O_CREAT | O_TRUNC, 0600)
                                               : MakeMemoryFile(length));
    WriteAt(files_.back(), Bytes(length.value(), kGarbage), FileOffset{0});
    memories_.push_back(
        MemoryMapping::OfFile(files_.back(), kStart, block.length(), MemoryMapping::Access::kReadWrite));
    targets_.push_back({memories_.back().bytes(), &files_.back(), kStart});
  }

  std::deque<FileDescriptor> files_;
  std::vector<MemoryMapping> memories_;
  std::vector<LoadTarget> targets_;
};

class MemoryLoaderTest : public testing::TestWithParam<std::tuple<IoWay, Copy>> {
 protected:
  void SetUp() override {
    const IoWay way = std::get<IoWay>(GetParam());
    if (const std::string reason = ReasonAgainst(way, directory_); !reason.empty()) GTEST_SKIP() << reason;
    WriteCopy(path_, guest_, std::get<Copy>(GetParam()));
  }

  void LoadInto(const Targets& targets) const {
    const auto [engine, cache, channels] = std::get<IoWay>(GetParam());
    const Image image(path_);
    Progress progress;
    const LoadedRam loaded =
        LoadImage(image, targets.all(), {channels, engine, cache}, PageChecks::kOn, progress, Interrupt());
    EXPECT_EQ(progress.done(), progress.total());
    EXPECT_TRUE(std::ranges::equal(loaded.device_state, guest_.image().device_state));
    ASSERT_EQ(loaded.contents.blocks.size(), guest_.image().blocks.size());
    for (std::size_t i = 0; i < loaded.contents.blocks.size(); ++i) {
      const PageBitmap& present = loaded.contents.blocks[i].present;
      for (std::uint64_t page = 0; page < present.pages(); ++page) {
        ASSERT_EQ(present.Test(page), guest_.IsPresent(i, page)) << i << ":" << page;
      }
    }
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
};

TEST_P(MemoryLoaderTest, ReplacesAllThatPrivateMemoryHeld) {
  const Targets targets(guest_.image(), Targets::Backing::kNone, directory_);
  LoadInto(targets);
  targets.ExpectEqual(guest_.image());
}

TEST_P(MemoryLoaderTest, LeavesHolesForAbsentPagesInAMemoryFile) {
  const Targets targets(guest_.image(), Targets::Backing::kMemoryFile, directory_);
  LoadInto(targets);
  targets.ExpectHoles(guest_);  // first: to read a hole of a memory file is to fill it
  targets.ExpectUnchangedBeside();
  targets.ExpectEqual(guest_.image());
}

// No look at each page's hole: a file system may give storage to the neighbours of a page that is written by way of a
// mapping (ext4 with large folios).
TEST_P(MemoryLoaderTest, ReplacesAllThatAFileOnDiskHeld) {
  const Targets targets(guest_.image(), Targets::Backing::kFile, directory_);
  LoadInto(targets);
  targets.ExpectUnchangedBeside();
  targets.ExpectEqual(guest_.image());
}

INSTANTIATE_TEST_SUITE_P(WaysAndCopies, MemoryLoaderTest, testing::Combine(kAllIoWays, testing::ValuesIn(kAllCopies)),
                         [](const auto& shown) {
                           return IoWayName({std::get<IoWay>(shown.param), 0}) + CopyName(std::get<Copy>(shown.param));
                         });

// A guest without a single present page: nothing is written, so that all of the block must be a hole, on disk too.
TEST(LoadZerosTest, LeavesAHoleInPlaceOfTheWholeBlock) {
  const ScratchDirectory directory;
  SmallGuest guest({{"pc.ram", 600}});
  std::ranges::fill(guest.memory(0), std::byte{0});
  for (const Copy copy : kAllCopies) {
    WriteCopy(directory.Path("vm.sav"), guest, copy);
    const Targets targets(guest.image(), Targets::Backing::kFile, directory);
    Progress progress;
    LoadImage(Image(directory.Path("vm.sav")), targets.all(), {}, PageChecks::kOn, progress, Interrupt());
    targets.ExpectHoles(guest);
    targets.ExpectUnchangedBeside();
    targets.ExpectEqual(guest.image());
  }
}

class LoadDamagedTest : public testing::Test {
 protected:
  void Load(PageChecks checks, const Interrupt& interrupt = Interrupt()) const {
    const Targets targets(guest_.image(), Targets::Backing::kNone, directory_);
    Progress progress;
    LoadImage(Image(path_), targets.all(), {}, checks, progress, interrupt);
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
};

TEST_F(LoadDamagedTest, RefusesADamagedPageAndNamesIt) {
  WriteCopy(path_, guest_, Copy::kVersion3);
  const FlippedBit damage(path_, Image(path_).contents().blocks[1].mapped_ram->pages_offset + ByteCount{77}, 1);
  ExpectDamaged([&] { Load(PageChecks::kOn); }, "pages 0-0 of RAM block pc.bios");
  EXPECT_NO_THROW(Load(PageChecks::kOff));
}

TEST_F(LoadDamagedTest, RefusesAFileThatWasCutOffAfterItWasOpened) {
  WriteCopy(path_, guest_, Copy::kVersion3);
  const Image image(path_);
  Truncate(path_, image.contents().blocks[2].mapped_ram->pages_offset.value() + kPageBytes / 2);
  const Targets targets(guest_.image(), Targets::Backing::kNone, directory_);
  Progress progress;
  ExpectDamaged([&] { LoadImage(image, targets.all(), {}, PageChecks::kOff, progress, Interrupt()); }, "ends early");
}

TEST_F(LoadDamagedTest, RefusesAStreamThatEndsEarly) {
  WriteCopy(path_, guest_, Copy::kVersion2);
  Truncate(path_, Image(path_).file_length().value() - guest_.image().device_state.size() - 20);
  ExpectDamaged([&] { Load(PageChecks::kOn); }, "ends early");
}

TEST_F(LoadDamagedTest, RefusesAStreamThatIsNotCompressedAsItsHeaderSays) {
  WriteCopy(path_, guest_, Copy::kVersion2);
  Overwrite(path_, FileOffset{28}, Hex("05000000"));
  ExpectDamaged([&] { Load(PageChecks::kOn); }, "cannot decompress");
}

TEST_F(LoadDamagedTest, StopsWhenInterrupted) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
    EXPECT_THROW(Load(PageChecks::kOn, requested), Error);
  }
}

// A stream as QEMU writes it of a guest that still runs: pages come several times, over several sections.
class RepeatedPages {
 public:
  RepeatedPages() {
    AppendStreamStart(out_, frame_, {}, ByteCount{4 * kPageBytes});
    AppendBlockEntry(out_, "a", ByteCount{3 * kPageBytes});
    AppendBlockEntry(out_, "b", kPageSize);
    AppendRamSectionEnd(out_, frame_);
    AppendRamPart(out_, frame_);
  }

  void Page(std::string_view block, std::uint64_t page, std::byte value, bool continues = false) {
    out_.Append(MakeRecordHead(block, PageIndex{page}, value != std::byte{0}, continues).bytes());
    out_.Append(value == std::byte{0} ? Bytes(1) : Bytes(kPageBytes, value));
  }
  void NextSection() {
    AppendRamSectionEnd(out_, frame_);
    AppendRamPart(out_, frame_);
  }
  // As a background snapshot does.
  Bytes FinishWithoutEnd() {
    AppendRamSectionEnd(out_, frame_);
    out_.Append(MakeDeviceState());
    return out_.Take();
  }
  Bytes Finish() {
    AppendRamSectionEnd(out_, frame_);
    AppendRamEnd(out_, frame_);
    out_.Append(MakeDeviceState());
    return out_.Take();
  }

 private:
  StreamFrame frame_{"pc-i440fx-7.2", 2, true};
  ByteWriter out_;
};

TEST(LoadStreamTest, TakesThePageThatCameLast) {
  RepeatedPages stream;
  stream.Page("a", 0, std::byte{1});
  stream.Page("a", 1, std::byte{2}, true);
  stream.Page("b", 0, std::byte{3});
  stream.NextSection();
  stream.Page("b", 0, std::byte{4}, true);  // goes on with the block of the section before
  stream.Page("a", 0, std::byte{0});        // zero after a page
  stream.Page("a", 1, std::byte{0}, true);
  stream.Page("a", 1, std::byte{6}, true);  // a page after zero
  const ScratchDirectory directory;
  const std::string path = directory.Path("stream");
  WriteWholeFile(path, stream.Finish());
  Bytes a(3 * kPageBytes, std::byte{0xee});
  Bytes b(kPageBytes, std::byte{0xee});
  Progress progress;
  const LoadedRam loaded =
      LoadImage(Image(path), {{a, nullptr, {}}, {b, nullptr, {}}}, {}, PageChecks::kOn, progress, Interrupt());
  EXPECT_EQ(a, Join({Bytes(kPageBytes), Bytes(kPageBytes, std::byte{6}), Bytes(kPageBytes)}));
  EXPECT_EQ(b, Bytes(kPageBytes, std::byte{4}));
  EXPECT_EQ(loaded.contents.blocks[0].present.Encode().front(), std::byte{0b010});
  EXPECT_EQ(loaded.contents.blocks[1].present.Encode().front(), std::byte{0b001});
  EXPECT_TRUE(loaded.contents.frame.switchover_start);
}

TEST(LoadStreamTest, LoadsABackgroundSnapshot) {
  RepeatedPages stream;
  stream.Page("a", 1, std::byte{2});
  stream.NextSection();
  stream.Page("b", 0, std::byte{3});
  const ScratchDirectory directory;
  const std::string path = directory.Path("stream");
  WriteWholeFile(path, stream.FinishWithoutEnd());
  Bytes a(3 * kPageBytes, std::byte{0xee});
  Bytes b(kPageBytes, std::byte{0xee});
  Progress progress;
  const LoadedRam loaded =
      LoadImage(Image(path), {{a, nullptr, {}}, {b, nullptr, {}}}, {}, PageChecks::kOn, progress, Interrupt());
  EXPECT_EQ(a, Join({Bytes(kPageBytes), Bytes(kPageBytes, std::byte{2}), Bytes(kPageBytes)}));
  EXPECT_EQ(b, Bytes(kPageBytes, std::byte{3}));
  EXPECT_EQ(loaded.contents.blocks[0].present.Encode().front(), std::byte{0b010});
  EXPECT_EQ(loaded.device_state, MakeDeviceState());
}

}  // namespace
}  // namespace vmsave
