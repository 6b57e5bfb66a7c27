#include "writer/image_writer.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <filesystem>

#include "format/integrity_table.h"
#include "format/mapped_ram.h"
#include "io/sparse_file.h"
#include "reader/verify.h"
#include "tests/format/golden.h"
#include "tests/scratch_directory.h"
#include "tests/writer/file_size_limit.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"

namespace vmsave {
namespace {

bool IsEmpty(const ScratchDirectory& directory) {
  return std::filesystem::is_empty(directory.path());
}

class ImageWriterTest : public testing::TestWithParam<IoWay> {
 protected:
  void SetUp() override {
    if (const std::string reason = ReasonAgainst(GetParam(), directory_); !reason.empty()) GTEST_SKIP() << reason;
  }

  WriteTotals Save(const std::string& path, const GuestImage& guest, std::uint32_t version) const {
    const auto [engine, cache, channels] = GetParam();
    return SaveImage(path, guest, version, {channels, engine, true}, cache);
  }

  ScratchDirectory directory_;
};

// One thread, plain system calls, through the page cache: what all other ways must equal.
Bytes Reference(const ScratchDirectory& directory, const GuestImage& guest, std::uint32_t version) {
  const std::string path = directory.Path("reference.sav");
  SaveImage(path, guest, version);
  return ReadWholeFile(path);
}

TEST_P(ImageWriterTest, WritesTheSameBytesInVersion2) {
  const SmallGuest guest;
  Save(directory_.Path("vm.sav"), guest.image(), 2);
  EXPECT_TRUE(ReadWholeFile(directory_.Path("vm.sav")) == Reference(directory_, guest.image(), 2));
}

TEST_P(ImageWriterTest, WritesTheSameBytesInVersion3) {
  const SmallGuest guest;
  Save(directory_.Path("vm.sav"), guest.image(), 3);
  EXPECT_TRUE(ReadWholeFile(directory_.Path("vm.sav")) == Reference(directory_, guest.image(), 3));
}

TEST_P(ImageWriterTest, WritesWhatAReaderLoads) {
  SmallGuest guest;
  for (const std::uint32_t version : {2U, 3U}) {
    guest.image().was_running = version == 2;
    const std::string path = directory_.Path("vm.sav");
    Save(path, guest.image(), version);
    ExpectHoldsGuest(path, guest.image());
    VerifyMetadata(Image(path));
  }
}

TEST_P(ImageWriterTest, LeavesZeroPagesAsHolesInVersion3) {
  const SmallGuest guest;
  const std::string path = directory_.Path("vm.sav");
  Save(path, guest.image(), 3);
  const Image image(path);
  for (std::size_t block = 0; block < guest.image().blocks.size(); ++block) {
    const StreamBlock& saved = image.contents().blocks[block];
    for (std::uint64_t page = 0; page < saved.pages(); ++page) {
      const FileOffset at = saved.mapped_ram->pages_offset + PagesToBytes(PageIndex{page});
      ASSERT_EQ(NextData(image.file(), at, at + kPageSize).has_value(), guest.IsPresent(block, page))
          << block << ":" << page;
    }
  }
}

TEST_P(ImageWriterTest, TellsTheTotals) {
  const SmallGuest guest;
  for (const std::uint32_t version : {2U, 3U}) {
    const std::string path = directory_.Path("vm.sav");
    const WriteTotals totals = Save(path, guest.image(), version);
    EXPECT_EQ(totals.ram, guest.image().ram_length());
    EXPECT_EQ(totals.present, PagesToBytes(PageIndex{guest.CountPresent()}));
    EXPECT_EQ(totals.zero, totals.ram - totals.present);
    EXPECT_EQ(totals.file_length, ByteCount{std::filesystem::file_size(path)});
  }
}

TEST_P(ImageWriterTest, TakesGuestsOfAwkwardSizes) {
  for (const std::uint64_t pages : {1U, 15U, 17U, 63U, 65U, 255U, 257U}) {
    const SmallGuest guest({{"pc.ram", pages}, {"x", 1}}, pages);
    for (const std::uint32_t version : {2U, 3U}) {
      Save(directory_.Path("vm.sav"), guest.image(), version);
      ExpectHoldsGuest(directory_.Path("vm.sav"), guest.image());
    }
  }
}

// What the guest does when it goes on is not in the image.
TEST_P(ImageWriterTest, ReleasesTheGuestWhenItsPagesAreWrittenAndTheImageIsNotCompleteYet) {
  const auto [engine, cache, channels] = GetParam();
  const SmallGuest as_it_was;
  for (const std::uint32_t version : {2U, 3U}) {
    SmallGuest guest;
    NewFile file(directory_.Path("vm.sav"), Replace::kYes, cache);
    Progress progress;
    int releases = 0;
    guest.image().release = [&] {
      ++releases;
      EXPECT_TRUE(IsPartial(file)) << "version " << version;
      for (std::size_t block = 0; block < guest.image().blocks.size(); ++block) {
        std::ranges::fill(guest.memory(block), std::byte{0x99});
      }
    };
    WriteImage(file, guest.image(), version, {channels, engine, true}, progress);
    EXPECT_EQ(releases, 1) << "version " << version;
    file.Publish();
    ExpectHoldsGuest(directory_.Path("vm.sav"), as_it_was.image());
  }
}

TEST_P(ImageWriterTest, HasSavedAllThereIsWhenItReleasesTheGuest) {
  const auto [engine, cache, channels] = GetParam();
  for (const std::uint32_t version : {2U, 3U}) {
    SmallGuest guest;
    NewFile file(directory_.Path("vm.sav"), Replace::kYes, cache);
    Progress progress;
    bool released = false;
    guest.image().release = [&] {
      released = true;
      EXPECT_EQ(progress.phase(), "saving") << "version " << version;
      EXPECT_GT(progress.total(), ByteCount{0}) << "version " << version;
      EXPECT_EQ(progress.done(), progress.total()) << "version " << version;
    };
    WriteImage(file, guest.image(), version, {channels, engine, true}, progress);
    EXPECT_TRUE(released) << "version " << version;
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, ImageWriterTest, kAllIoWays, IoWayName);

// The guest of FORMAT.md's worked example.
class GoldenGuest {
 public:
  GoldenGuest() {
    image_.frame = {"pc-i440fx-7.2", 2, false};
    image_.blocks.push_back({"pc.ram", memory_, std::nullopt, nullptr, {}});
    image_.device_state = device_state_;
    image_.description = golden::kDescription;
  }
  const GuestImage& image() const { return image_; }

 private:
  Bytes memory_ = Join({Bytes(4096), golden::Page1()});
  Bytes device_state_ = Hex(golden::kDeviceState);
  GuestImage image_;
};

TEST(Version2WriterTest, WritesTheWorkedExampleOfTheFormat) {
  const ScratchDirectory directory;
  const GoldenGuest guest;
  const Bytes file = Reference(directory, guest.image(), 2);
  EXPECT_TRUE(file == Join({Hex(golden::kHeaderV2), golden::Data(), golden::LegacyStream()}));
}

constexpr std::uint64_t kLargePages = 32 * 256;  // 32 MiB: many chunks, and as many pieces of the file

TEST(Version2WriterTest, WritesBeforeItHasLookedAtAllOfTheGuest) {
  const ScratchDirectory directory;
  const SmallGuest guest({{"pc.ram", kLargePages}});
  NewFile file(directory.Path("vm.sav"), Replace::kYes, CacheUse::kPageCache);
  Progress progress;
  const FileSizeLimit no_growth(0);
  EXPECT_THROW(WriteImage(file, guest.image(), 2, {1, EngineKind::kSync, true}, progress), Error);
  EXPECT_LT(progress.done(), progress.total());
}

TEST(Version2WriterTest, ChannelsShareWhatBecomesKnown) {
  const ScratchDirectory directory;
  const SmallGuest guest({{"pc.ram", kLargePages}});
  const Bytes alone = Reference(directory, guest.image(), 2);
  for (int round = 0; round < 10; ++round) {
    SaveImage(directory.Path("vm.sav"), guest.image(), 2, {8, EngineKind::kSync, true});
    ASSERT_TRUE(ReadWholeFile(directory.Path("vm.sav")) == alone);
  }
}

TEST(Version3WriterTest, WritesTheWorkedExampleOfTheFormat) {
  const ScratchDirectory directory;
  const GoldenGuest guest;
  const Bytes file = Reference(directory, guest.image(), 3);
  const std::span<const std::byte> bytes(file);
  ASSERT_EQ(file.size(), golden::kFileLength);
  EXPECT_EQ(ToHex(bytes.first(92)), golden::kHeaderV3);
  EXPECT_TRUE(std::ranges::equal(bytes.subspan(92, golden::kDataLength), golden::Data()));
  EXPECT_EQ(ToHex(bytes.subspan(golden::kStreamStart, golden::kBitmapOffset - golden::kStreamStart)),
            golden::kMappedHead);
  EXPECT_EQ(ToHex(bytes.subspan(golden::kBitmapOffset, 8)), golden::kBitmap);
  EXPECT_TRUE(std::ranges::equal(bytes.subspan(golden::kPagesOffset, 4096), Bytes(4096)));
  EXPECT_TRUE(std::ranges::equal(bytes.subspan(golden::kPagesOffset + 4096, 4096), golden::Page1()));
  EXPECT_EQ(ToHex(bytes.subspan(golden::kRamEndOffset, golden::kStreamEnd - golden::kRamEndOffset)),
            std::string(golden::kRamEnd) + std::string(golden::kDeviceState));
  EXPECT_EQ(ToHex(bytes.subspan(golden::kIntegrityOffset)), golden::kIntegrityTable);
  EXPECT_TRUE(file == golden::Version3Image());
}

TEST(Version3WriterTest, KeepsTheBlocksAddresses) {
  const ScratchDirectory directory;
  SmallGuest guest;
  guest.image().blocks[2].address = GuestAddress{0xfd000000};
  SaveImage(directory.Path("vm.sav"), guest.image(), 3);
  const Image image(directory.Path("vm.sav"));
  EXPECT_FALSE(image.integrity()->blocks[0].address);
  EXPECT_EQ(image.integrity()->blocks[2].address, GuestAddress{0xfd000000});
}

TEST(Version3WriterTest, WritesNoTableWithoutChecksums) {
  const ScratchDirectory directory;
  const SmallGuest guest;
  const std::string path = directory.Path("vm.sav");
  SaveImage(path, guest.image(), 3, {2, EngineKind::kSync, false});
  const Image image(path);
  EXPECT_FALSE(image.integrity());
  EXPECT_EQ(image.stream_end(), FileOffset{image.file_length().value()});
  VerifyMetadata(image);
  ExpectHoldsGuest(path, guest.image());
}

TEST(Version3WriterTest, LeavesTheGuestsUntouchedPagesUntouched) {
  const ScratchDirectory directory;
  const SmallGuest guest;
  const ByteCount before = TouchedBytes(guest.image().blocks[0]);
  for (const std::uint32_t version : {2U, 3U}) {
    SaveImage(directory.Path("vm.sav"), guest.image(), version, {8, EngineKind::kSync, true});
    EXPECT_EQ(TouchedBytes(guest.image().blocks[0]), before) << "version " << version;
  }
}

// Both versions.
class FailingWriterTest : public testing::TestWithParam<std::tuple<std::uint32_t, EngineKind>> {
 protected:
  void SetUp() override {
    const IoWay way{std::get<EngineKind>(GetParam()), CacheUse::kPageCache, 4};
    if (const std::string reason = ReasonAgainst(way, directory_); !reason.empty()) GTEST_SKIP() << reason;
  }

  // The kind of what was thrown; nothing where the image was written.
  std::optional<ErrorKind> Failure(const Interrupt& interrupt) const {
    const auto [version, engine] = GetParam();
    const WriteOptions options{4, engine, true};
    NewFile file(directory_.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache);
    Progress progress;
    try {
      WriteImage(file, guest_.image(), version, options, progress, interrupt);
    } catch (const Error& error) {
      return error.kind();
    }
    return std::nullopt;
  }

  ScratchDirectory directory_;
  SmallGuest guest_;
};

TEST_P(FailingWriterTest, ThrowsWhereTheFileCannotGrow) {
  for (const rlim_t limit : {rlim_t{0}, rlim_t{1000}, rlim_t{1} << 20, (rlim_t{1} << 20) + 70000}) {
    const FileSizeLimit no_growth(limit);
    EXPECT_EQ(Failure(Interrupt()), ErrorKind::kFailed) << limit;
    EXPECT_TRUE(IsEmpty(directory_)) << limit;
  }
}

TEST_P(FailingWriterTest, ReleasesNoGuestWhosePagesCannotBeWritten) {
  guest_.image().release = [] { ADD_FAILURE() << "released"; };
  const FileSizeLimit no_growth((rlim_t{1} << 20) + 70000);
  EXPECT_EQ(Failure(Interrupt()), ErrorKind::kFailed);
}

TEST_P(FailingWriterTest, EndsWithWhatTheReleaseOfTheGuestThrows) {
  guest_.image().release = [] { throw Error(ErrorKind::kInterrupted, "cannot resume it", "it is gone"); };
  EXPECT_EQ(Failure(Interrupt()), ErrorKind::kInterrupted);
  EXPECT_TRUE(IsEmpty(directory_));
}

TEST_P(FailingWriterTest, StopsWhenInterrupted) {
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  EXPECT_EQ(Failure(requested), ErrorKind::kInterrupted);
  EXPECT_TRUE(IsEmpty(directory_));
}

TEST_P(FailingWriterTest, LeavesNoFileThatWasNotPublished) {
  EXPECT_EQ(Failure(Interrupt()), std::nullopt);
  EXPECT_TRUE(IsEmpty(directory_));
}

TEST_P(FailingWriterTest, EndsWithSyncingAsAPhaseOfItsOwn) {
  const auto [version, engine] = GetParam();
  NewFile file(directory_.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache);
  Progress progress;
  WriteImage(file, guest_.image(), version, {4, engine, true}, progress);
  EXPECT_EQ(progress.phase(), "syncing");
  EXPECT_EQ(progress.total(), ByteCount{0});
}

INSTANTIATE_TEST_SUITE_P(Versions, FailingWriterTest,
                         testing::Combine(testing::Values(2U, 3U),
                                          testing::Values(EngineKind::kSync, EngineKind::kUring)),
                         [](const auto& shown) {
                           return "Version" + std::to_string(std::get<0>(shown.param)) +
                                  std::string(EngineName(std::get<1>(shown.param)));
                         });

}  // namespace
}  // namespace vmsave
