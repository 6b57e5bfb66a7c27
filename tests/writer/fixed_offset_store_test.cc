#include "writer/fixed_offset_store.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <filesystem>
#include <random>

#include "tests/format/byte_strings.h"
#include "tests/scratch_directory.h"
#include "tests/writer/arriving_pages.h"
#include "tests/writer/file_size_limit.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"
#include "tests/writer/late_engine.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"

namespace vmsave {
namespace {

WriteTotals Complete(PageStore& store, NewFile& file, const GuestImage& guest) {
  Progress progress;
  const WriteTotals totals = store.Complete(guest.frame, guest.device_state, progress, Interrupt());
  file.Publish();
  return totals;
}

class FixedOffsetStoreTest : public testing::TestWithParam<IoWay> {
 protected:
  void SetUp() override {
    if (const std::string reason = ReasonAgainst(GetParam(), directory_); !reason.empty()) GTEST_SKIP() << reason;
  }

  WriteOptions options() const { return {std::get<unsigned>(GetParam()), std::get<EngineKind>(GetParam()), true}; }
  NewFile Create() const { return {path_, Replace::kYes, std::get<CacheUse>(GetParam())}; }

  WriteTotals Save(const SmallGuest& guest, const std::vector<PageBatch>& batches) const {
    NewFile file = Create();
    const auto store = MakeVersion3Store(file, Arriving(guest.image()), options());
    DeliverAll(*store, options().channels, guest.image(), batches);
    return Complete(*store, file, guest.image());
  }

  // What the writer that has the guest's memory makes of the same guest.
  void ExpectEqualsReference(const SmallGuest& guest) const {
    SaveImage(directory_.Path("reference.sav"), guest.image(), 3);
    EXPECT_TRUE(ReadWholeFile(path_) == ReadWholeFile(directory_.Path("reference.sav")));
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
};

TEST_P(FixedOffsetStoreTest, WritesTheBytesOfTheWriterFromMemory) {
  const SmallGuest guest;
  for (const std::size_t largest : {7U, 256U}) {
    Save(guest, ShuffledBatches(guest, largest, InBatch::kAscending, largest));
    ExpectEqualsReference(guest);
    ExpectHoldsGuest(path_, guest.image());
  }
}

TEST_P(FixedOffsetStoreTest, TakesPagesInAnyOrder) {
  const SmallGuest guest;
  for (const std::size_t largest : {3U, 256U}) {
    Save(guest, ShuffledBatches(guest, largest, InBatch::kAnyOrder, largest));
    ExpectEqualsReference(guest);
  }
}

TEST_P(FixedOffsetStoreTest, TakesGuestsOfAwkwardSizes) {
  for (const std::uint64_t pages : {1U, 15U, 17U, 63U, 65U, 255U, 257U}) {
    const SmallGuest guest({{"pc.ram", pages}, {"x", 1}}, pages);
    Save(guest, ShuffledBatches(guest, 256, pages % 2 == 0 ? InBatch::kAnyOrder : InBatch::kAscending, pages));
    ExpectEqualsReference(guest);
  }
}

TEST_P(FixedOffsetStoreTest, TellsTheTotals) {
  const SmallGuest guest;
  const WriteTotals totals = Save(guest, ShuffledBatches(guest, 256, InBatch::kAscending, 1));
  EXPECT_EQ(totals.ram, guest.image().ram_length());
  EXPECT_EQ(totals.present, PagesToBytes(PageIndex{guest.CountPresent()}));
  EXPECT_EQ(totals.zero, totals.ram - totals.present);
  EXPECT_EQ(totals.file_length, ByteCount{std::filesystem::file_size(path_)});
}

INSTANTIATE_TEST_SUITE_P(Ways, FixedOffsetStoreTest, kAllIoWays, IoWayName);

// One block of 40 pages, all zero until a test gives it some.
class RepeatedPagesTest : public testing::Test {
 protected:
  static constexpr std::byte kOld{0xaa};

  RepeatedPagesTest() { std::ranges::fill(guest_.memory(0), std::byte{0}); }

  // The page of the guest has content from now on.
  void GiveContent(const std::vector<PageIndex>& pages) {
    for (const PageIndex page : pages) FillRandomly(guest_.memory(0).subspan(page.value() * 4096, 4096), random_);
  }
  void Complete() {
    channels_.clear();
    totals_ = vmsave::Complete(*store_, file_, guest_.image());
    ExpectHoldsGuest(path_, guest_.image());
    EXPECT_EQ(totals_.present, PagesToBytes(PageIndex{guest_.CountPresent()}));
  }
  PageChannel& OpenChannel() { return *channels_.emplace_back(store_->OpenChannel()); }
  void Send(PageChannel& channel, const std::vector<PageIndex>& pages) { SendPages(channel, guest_.image(), 0, pages); }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_{{{"pc.ram", 40}}};
  std::mt19937_64 random_{3};
  WriteTotals totals_;
  NewFile file_{path_, Replace::kNo, CacheUse::kPageCache};
  std::unique_ptr<PageStore> store_ = MakeFixedOffsetStore(file_, Arriving(guest_.image()), FixedOffsetKind::kVersion3,
                                                           {}, [] { return std::make_unique<LateEngine>(16, 5); });
  std::vector<std::unique_ptr<PageChannel>> channels_;
};

TEST_F(RepeatedPagesTest, TheCopyThatComesAfterSettleCounts) {
  const auto pages = Pages({1, 2, 3, 20, 39});
  GiveContent(pages);
  PageChannel& first = OpenChannel();
  PageChannel& second = OpenChannel();
  SendFilled(first, 0, pages, kOld);
  first.Settle();
  second.Settle();
  Send(second, pages);
  second.Settle();
  first.Settle();
  Complete();
}

// So that neighbours are written together, however a packet has them.
TEST_F(RepeatedPagesTest, PagesOutOfOrderLieInOrderInTheBuffer) {
  PageChannel& channel = OpenChannel();

  const std::span<const iovec> pieces = channel.Place(0, Pages({9, 2, 3, 8, 4}));

  ASSERT_EQ(pieces.size(), 4U);
  std::byte* const begin = static_cast<std::byte*>(pieces[1].iov_base);
  EXPECT_EQ(pieces[0].iov_base, begin + 4 * 4096);
  EXPECT_EQ(pieces[1].iov_len, 2 * 4096U);
  EXPECT_EQ(pieces[2].iov_base, begin + 3 * 4096);
  EXPECT_EQ(pieces[3].iov_base, begin + 2 * 4096);
}

TEST_F(RepeatedPagesTest, TheLastCopyWithinOneBufferCounts) {
  const auto pages = Pages({7, 8, 9, 2, 30, 0});
  GiveContent(pages);
  PageChannel& channel = OpenChannel();
  SendFilled(channel, 0, Pages({0, 1, 2, 3, 7}), kOld);
  SendFilled(channel, 0, Pages({30, 9, 8, 0}), kOld);
  channel.Zero(0, Pages({1, 3}));
  Send(channel, pages);
  channel.Settle();
  Complete();
}

TEST_F(RepeatedPagesTest, PagesBecomeZeroAndComeBack) {
  GiveContent(Pages({3, 5, 17}));
  PageChannel& channel = OpenChannel();
  SendFilled(channel, 0, Pages({0, 3, 4, 5, 16, 17}), kOld);  // two chunks that came at once, were they not to change
  SendFilled(channel, 0, Pages({33, 34}), kOld);              // a chunk that is all zero in the end
  channel.Settle();
  channel.Zero(0, Pages({0, 3, 4, 5, 16, 17, 33, 34, 39}));
  channel.Settle();
  Send(channel, Pages({3, 5, 17}));
  channel.Settle();
  Complete();
  const Image image(path_);
  EXPECT_EQ(image.integrity()->blocks[0].chunk_hashes[2], 0U);
}

TEST_F(RepeatedPagesTest, AChunkThatCameAtOnceIsHashedInTheOrderOfItsPages) {
  const auto pages = Pages({5, 3, 4, 15, 0, 17, 16, 39, 33});
  GiveContent(pages);
  PageChannel& channel = OpenChannel();
  Send(channel, pages);
  channel.Settle();
  Complete();
}

// The chunk's checksum was made of pages that are not all present any more.
TEST_F(RepeatedPagesTest, AChunkThatLostAPageIsHashedAnew) {
  GiveContent(Pages({3, 5}));
  PageChannel& channel = OpenChannel();
  Send(channel, Pages({3, 5}));
  channel.Settle();
  channel.Zero(0, Pages({3}));
  std::ranges::fill(guest_.memory(0).subspan(3 * kPageBytes, kPageBytes), std::byte{0});
  Complete();
}

TEST_F(RepeatedPagesTest, ZeroPagesThatNeverHadContentTakeNothing) {
  PageChannel& channel = OpenChannel();
  channel.Zero(0, Pages({0, 1, 39}));
  channel.Settle();
  Complete();
}

// What came at once is hashed as it came, not as the file has it: damage on the way to the disk shows. Only what came
// in parts is read back.
TEST_F(RepeatedPagesTest, ChunksThatCameAtOnceAreNotReadBack) {
  GiveContent(Pages({0, 1, 16, 17}));
  PageChannel& channel = OpenChannel();
  Send(channel, Pages({0, 1, 16}));
  Send(channel, Pages({17}));
  channel.Settle();
  channels_.clear();
  const FileOffset first_chunk = LayOutOf(Arriving(guest_.image())).blocks[0].pages_offset;
  for (const FileOffset at : {first_chunk, first_chunk + ByteCount{kChunkBytes}}) {
    WriteAt(file_.buffered(), Bytes(8, std::byte{0x55}), at);
  }
  Progress progress;
  store_->Complete(guest_.image().frame, guest_.image().device_state, progress, Interrupt());
  file_.Publish();
  const VerifyReport report = Verify(Image(path_), {}, progress, Interrupt());
  ASSERT_EQ(report.damage.size(), 1U);
  EXPECT_NE(report.damage[0].find("pages 0-15 "), std::string::npos) << report.damage[0];
}

// What follows the reading back does not fit.
TEST_F(RepeatedPagesTest, TellsThatAllIsReadBack) {
  PageChannel& channel = OpenChannel();
  SendFilled(channel, 0, Pages({1}), kOld);
  SendFilled(channel, 0, Pages({2}), kOld);
  channel.Settle();
  channels_.clear();
  const FileSizeLimit no_growth(FileLength(file_.buffered()).value());
  Progress progress;
  ExpectFailed([&] { store_->Complete(guest_.image().frame, {}, progress, Interrupt()); }, "File too large");
  EXPECT_EQ(progress.phase(), "reading back for checksums");
  EXPECT_EQ(progress.total(), ByteCount{2 * kPageBytes});
  EXPECT_EQ(progress.done(), progress.total());
}

TEST_F(RepeatedPagesTest, WhatAChannelLostIsNotCompleted) {
  PageChannel& channel = OpenChannel();
  SendFilled(channel, 0, Pages({1}), kOld);
  channels_.clear();
  Progress progress;
  ExpectFailed([&] { store_->Complete(guest_.image().frame, {}, progress, Interrupt()); }, "not all pages");
}

TEST_F(RepeatedPagesTest, StopsReadingBackWhenInterrupted) {
  PageChannel& channel = OpenChannel();
  SendFilled(channel, 0, Pages({1}), kOld);
  channel.Settle();
  SendFilled(channel, 0, Pages({2}), kOld);
  channel.Settle();
  channels_.clear();
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  Progress progress;
  try {
    store_->Complete(guest_.image().frame, guest_.image().device_state, progress, requested);
    ADD_FAILURE() << "went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

TEST(Version3StoreEndTest, TakesTheFrameThatWasFoundInTheEnd) {
  const ScratchDirectory directory;
  SmallGuest guest;
  NewFile file(directory.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache);
  const auto store = MakeVersion3Store(file, Arriving(guest.image()), {});
  for (const PageBatch& batch : ShuffledBatches(guest, 256, InBatch::kAscending, 1)) {
    const auto channel = store->OpenChannel();
    Deliver(*channel, guest.image(), batch);
    channel->Settle();
  }
  guest.image().frame.switchover_start = true;
  Complete(*store, file, guest.image());
  SaveImage(directory.Path("reference.sav"), guest.image(), 3);
  EXPECT_TRUE(ReadWholeFile(directory.Path("vm.sav")) == ReadWholeFile(directory.Path("reference.sav")));
}

// The bitmap ends at a border of 1 MiB: one more byte in front of it moves the pages.
TEST(Version3StoreEndTest, RefusesAFrameThatMovesThePages) {
  const ScratchDirectory directory;
  const SmallGuest guest({{"pc.ram", 1}});
  ArrivingGuest arriving = Arriving(guest.image());
  const FileOffset bitmap = LayOutOf(arriving).blocks[0].bitmap_offset;
  const std::uint64_t border = RoundUp(bitmap.value() + 8, kPagesAlignment);
  arriving.description.append(border - bitmap.value() - 8, ' ');
  NewFile file(directory.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache);
  const auto store = MakeVersion3Store(file, arriving, {});
  Progress progress;
  ExpectFailed([&] { store->Complete({"pc-i440fx-7.20", 2, false}, {}, progress, Interrupt()); }, "machine type");
}

TEST(Version3StoreEndTest, WritesNoTableWithoutChecksums) {
  const ScratchDirectory directory;
  const SmallGuest guest;
  const std::string path = directory.Path("vm.sav");
  NewFile file(path, Replace::kNo, CacheUse::kPageCache);
  const auto store = MakeVersion3Store(file, Arriving(guest.image()), {1, EngineKind::kSync, false});
  auto channel = store->OpenChannel();
  for (const PageBatch& batch : ShuffledBatches(guest, 10, InBatch::kAnyOrder, 1)) {
    Deliver(*channel, guest.image(), batch);
  }
  channel->Settle();
  channel.reset();
  Complete(*store, file, guest.image());
  EXPECT_FALSE(Image(path).integrity());
  ExpectHoldsGuest(path, guest.image());
}

TEST(Version3StoreEndTest, AFailedWriteIsThrownAtTheLatestBySettle) {
  const ScratchDirectory directory;
  const SmallGuest guest;
  for (std::uint64_t good = 0; good < 6; ++good) {
    NewFile file(directory.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache);
    const auto store = MakeFixedOffsetStore(file, Arriving(guest.image()), FixedOffsetKind::kVersion3, {}, [good] {
      auto engine = std::make_unique<LateEngine>(2, good);
      engine->FailAfter(good);
      return engine;
    });
    auto channel = store->OpenChannel();
    const auto send = [&] {
      for (const PageBatch& batch : ShuffledBatches(guest, 256, InBatch::kAscending, 1)) {
        Deliver(*channel, guest.image(), batch);
      }
      channel->Settle();
    };
    ExpectFailed(send, "Input/output error");
    channel.reset();
    Progress progress;
    ExpectFailed([&] { store->Complete(guest.image().frame, {}, progress, Interrupt()); }, "not all pages");
  }
}

}  // namespace
}  // namespace vmsave
