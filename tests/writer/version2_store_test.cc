#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "format/save_header.h"
#include "tests/writer/arriving_pages.h"
#include "tests/writer/file_size_limit.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"
#include "tests/writer/loaded_guest.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

WriteTotals Finish(PageStore& store, const GuestImage& guest) {
  Progress progress;
  return store.Complete(guest.frame, guest.device_state, progress, Interrupt());
}

std::vector<PageBatch> BatchesOf(const SmallGuest& guest, std::uint64_t seed) {
  return ShuffledBatches(guest, PageChannel::kMaxPages, InBatch::kAnyOrder, seed);
}

void SendGuest(PageStore& store, unsigned channels, const SmallGuest& guest, std::uint64_t seed) {
  DeliverAll(store, channels, guest.image(), BatchesOf(guest, seed));
}

class Version2StoreTest : public testing::TestWithParam<IoWay> {
 protected:
  void SetUp() override {
    if (const std::string reason = ReasonAgainst(GetParam(), directory_); !reason.empty()) GTEST_SKIP() << reason;
  }

  unsigned channels() const { return std::get<unsigned>(GetParam()); }

  // Saves what `arrive` gives to the store, and compares the image with the guest.
  template <class Arrive>
  WriteTotals ExpectSaves(const SmallGuest& guest, Arrive arrive) {
    const auto [engine, cache, channels] = GetParam();
    NewFile file(path_, Replace::kYes, cache);
    const auto store = MakeVersion2Store(file, Arriving(guest.image()), {channels, engine, true});
    arrive(*store);
    const WriteTotals totals = Finish(*store, guest.image());
    file.Publish();
    ExpectHoldsGuest(path_, guest.image());
    EXPECT_EQ(totals.ram, guest.image().ram_length());
    EXPECT_EQ(totals.present, PagesToBytes(PageIndex{guest.CountPresent()}));
    EXPECT_EQ(totals.zero, totals.ram - totals.present);
    EXPECT_EQ(totals.file_length, ByteCount{std::filesystem::file_size(path_)});
    return totals;
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
};

TEST_P(Version2StoreTest, KeepsPagesThatArriveInAnyOrder) {
  const SmallGuest guest({{"pc.ram", 3000}, {"pc.bios", 1}, {std::string(255, 'n'), 300}});
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    ExpectSaves(guest, [&](PageStore& store) { SendGuest(store, channels(), guest, seed); });
  }
}

TEST_P(Version2StoreTest, TakesGuestsOfAwkwardSizes) {
  for (const std::uint64_t pages : {1U, 15U, 63U, 65U, 255U, 256U, 257U, 510U, 511U, 512U}) {
    SmallGuest guest({{"pc.ram", pages}, {"x", 1}}, pages);
    guest.image().was_running = pages % 2 == 0;
    ExpectSaves(guest, [&](PageStore& store) { SendGuest(store, channels(), guest, pages); });
  }
}

TEST_P(Version2StoreTest, LetsTheLastCopyOfAPageCount) {
  const SmallGuest guest({{"pc.ram", 1500}, {"vga.vram", 300}});
  ExpectSaves(guest, [&](PageStore& store) {
    DeliverAll(store, channels(), BatchesOf(guest, 4), DeliverSomethingElse);
    SendGuest(store, channels(), guest, 5);
    DeliverAll(store, channels(), BatchesOf(guest, 6), DeliverSomethingElse);
    SendGuest(store, channels(), guest, 7);
  });
}

TEST_P(Version2StoreTest, KeepsPagesThatNeverArrivedAsZero) {
  SmallGuest guest({{"pc.ram", 700}});
  std::ranges::fill(guest.memory(0), std::byte{0});
  ExpectSaves(guest, [](PageStore&) {});
}

TEST_P(Version2StoreTest, TakesDescriptionsAndDeviceStatesOfAnyLength) {
  for (const std::size_t length : {kMiB - 4096, 3 * kMiB, 3 * kMiB + 4095}) {
    SmallGuest guest;
    guest.image().description = std::string(length, 'd');
    const std::span<const std::byte> end = guest.image().device_state;
    const Bytes device_state = Join({Bytes(length - end.size(), std::byte{0x5c}), end});
    guest.image().device_state = device_state;
    ExpectSaves(guest, [&](PageStore& store) { SendGuest(store, channels(), guest, length); });
  }
}

TEST_P(Version2StoreTest, GivesRoomInAsFewPiecesAsCanBe) {
  const SmallGuest guest({{"pc.ram", PageChannel::kMaxPages * 9}});
  std::size_t straddling = 0;
  ExpectSaves(guest, [&](PageStore& store) {
    const auto channel = store.OpenChannel();
    for (std::uint64_t first = 0; first < guest.image().blocks[0].pages(); first += PageChannel::kMaxPages) {
      const std::vector<PageIndex> pages = PagesBetween(first, first + PageChannel::kMaxPages);
      const std::span<const iovec> pieces = channel->Place(0, pages);
      FillPieces(pieces, BytesOfPages(guest.image().blocks[0], pages));
      channel->Commit();
      EXPECT_LE(pieces.size(), pages.size() + 2) << "only at a buffer's edge is a page in two";
      straddling += pieces.size() - pages.size();
      for (std::uint64_t page = first; page < first + pages.size(); ++page) {
        if (!guest.IsPresent(0, page)) channel->Zero(0, PagesBetween(page, page + 1));  // for the totals
      }
    }
    channel->Settle();
  });
  EXPECT_GT(straddling, 0U);
}

// A channel that waits for its socket for a long time, while the others go on and on.
TEST_P(Version2StoreTest, NeverHoldsAChannelUpForAnother) {
  const SmallGuest guest({{"pc.ram", 2000}});
  std::vector<PageIndex> slow;
  for (std::uint64_t page = 0; page < 2000 && slow.size() < channels(); ++page) {
    if (guest.IsPresent(0, page)) slow.emplace_back(page);
  }
  ExpectSaves(guest, [&](PageStore& store) {
    std::vector<std::unique_ptr<PageChannel>> waiting;
    std::vector<std::span<const iovec>> room;
    for (const PageIndex& page : slow) {
      waiting.push_back(store.OpenChannel());
      room.push_back(waiting.back()->Place(0, std::span(&page, 1)));
      for (std::uint64_t round = 0; round < 2; ++round) SendGuest(store, 1, guest, round);
    }
    for (std::size_t i = 0; i < slow.size(); ++i) {
      FillPieces(room[i], BytesOfPages(guest.image().blocks[0], std::span(&slow[i], 1)));
      waiting[i]->Commit();
      waiting[i]->Settle();
    }
  });
}

TEST_P(Version2StoreTest, MayMakePagesZeroWhileOthersArePlaced) {
  SmallGuest guest({{"pc.ram", 400}});
  std::ranges::fill(guest.memory(0).subspan(0, 200 * kPageBytes), std::byte{0xaa});
  std::ranges::fill(guest.memory(0).subspan(200 * kPageBytes), std::byte{0});
  ExpectSaves(guest, [&](PageStore& store) {
    const auto channel = store.OpenChannel();
    const auto room = channel->Place(0, PagesBetween(0, 200));
    channel->Zero(0, PagesBetween(200, 400));
    FillPieces(room, guest.image().blocks[0].memory.first(200 * kPageBytes));
    channel->Commit();
    channel->Settle();
  });
}

// All pages of a block may be zero at once.
TEST_P(Version2StoreTest, TakesAnyNumberOfZeroPages) {
  SmallGuest guest({{"pc.ram", 1000}});
  std::ranges::fill(guest.memory(0), std::byte{0});
  ExpectSaves(guest, [&](PageStore& store) {
    const auto channel = store.OpenChannel();
    channel->Zero(0, PagesBetween(0, 1000));
    channel->Settle();
  });
}

TEST_P(Version2StoreTest, ThrowsForEveryChannelWhereTheFileCannotGrow) {
  const auto [engine, cache, channels] = GetParam();
  const SmallGuest guest({{"pc.ram", 1000}});
  NewFile file(path_, Replace::kNo, cache);
  const auto store = MakeVersion2Store(file, Arriving(guest.image()), {channels, engine, true});
  const auto other = store->OpenChannel();
  const FileSizeLimit no_growth(kMiB);
  EXPECT_THROW(SendGuest(*store, channels, guest, 1), Error);
  EXPECT_THROW(SendGuest(*store, channels, guest, 2), Error);
  EXPECT_THROW(other->Place(0, PagesBetween(0, 1)), Error);
  EXPECT_THROW(other->Zero(0, PagesBetween(0, 1)), Error);
  EXPECT_THROW(Finish(*store, guest.image()), Error);
}

TEST_P(Version2StoreTest, ThrowsWhereTheFileCannotTakeItsEnd) {
  const auto [engine, cache, channels] = GetParam();
  const SmallGuest guest({{"pc.ram", 40}});
  NewFile file(path_, Replace::kNo, cache);
  const auto store = MakeVersion2Store(file, Arriving(guest.image()), {channels, engine, true});
  SendGuest(*store, channels, guest, 1);
  for (const rlim_t limit : {rlim_t{0}, rlim_t{65536}}) {
    const FileSizeLimit no_growth(limit);
    EXPECT_THROW(Finish(*store, guest.image()), Error) << limit;
  }
}

TEST_P(Version2StoreTest, EndsWithSyncingAsAPhaseOfItsOwn) {
  const auto [engine, cache, channels] = GetParam();
  const SmallGuest guest;
  NewFile file(path_, Replace::kNo, cache);
  const auto store = MakeVersion2Store(file, Arriving(guest.image()), {channels, engine, true});
  Progress progress;
  store->Complete(guest.image().frame, guest.image().device_state, progress, Interrupt());
  EXPECT_EQ(progress.phase(), "syncing");
  EXPECT_EQ(progress.total(), ByteCount{0});
}

INSTANTIATE_TEST_SUITE_P(Ways, Version2StoreTest, kAllIoWays, IoWayName);

class Version2StoreFileTest : public testing::Test {
 protected:
  std::unique_ptr<PageStore> MakeStore() { return MakeVersion2Store(file_, Arriving(guest_.image()), {}); }

  ScratchDirectory directory_;
  SmallGuest guest_{{{"pc.ram", 3}, {"b", 2}}};
  NewFile file_{directory_.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache};
};

TEST_F(Version2StoreFileTest, HasTheRecordsInTheOrderOfTheirArrival) {
  const auto store = MakeStore();
  const auto one = store->OpenChannel();
  const auto other = store->OpenChannel();
  const Bytes first(2 * kPageBytes, std::byte{1});
  const Bytes second(kPageBytes, std::byte{2});
  const auto first_room = one->Place(0, std::vector{PageIndex{2}, PageIndex{0}});
  FillPieces(other->Place(1, PagesBetween(1, 2)), second);
  FillPieces(first_room, first);
  other->Commit();
  one->Commit();
  other->Zero(0, PagesBetween(0, 2));
  one->Settle();
  other->Settle();
  GuestImage& image = guest_.image();
  image.frame.switchover_start = true;  // found out at the end
  Finish(*store, image);
  file_.Publish();

  ByteWriter wanted;
  const auto append_head = [&](std::uint64_t word, std::string_view block = {}) {
    wanted.AppendBigEndian(word);
    if (block.empty()) return;
    wanted.AppendBigEndian(static_cast<std::uint8_t>(block.size()));
    wanted.Append(block);
  };
  Bytes before = EncodeBeforeStream(image.description, true);
  std::ranges::copy(EncodeSaveMagic(ImageState::kComplete), before.begin());
  wanted.Append(before);
  AppendLegacyHead(wanted, image.frame, Arriving(image).blocks);
  append_head(2 * 4096 | 0x08, "pc.ram");
  wanted.Append(std::span(first).first(4096));
  append_head(0x08 | 0x20);
  wanted.Append(std::span(first).first(4096));
  append_head(1 * 4096 | 0x08, "b");
  wanted.Append(second);
  append_head(0x02, "pc.ram");
  wanted.AppendZeros(1);
  append_head(1 * 4096 | 0x02 | 0x20);
  wanted.AppendZeros(1);
  AppendLegacyTail(wanted, image.frame, image.device_state);
  EXPECT_EQ(ToHex(ReadWholeFile(directory_.Path("vm.sav"))), ToHex(wanted.Take()));
}

TEST_F(Version2StoreFileTest, RefusesToCompleteWhatWasPlacedAndNeverCommitted) {
  const auto store = MakeStore();
  store->OpenChannel()->Place(0, PagesBetween(0, 1));
  Deliver(*store->OpenChannel(), guest_.image(), {1, {PageIndex{0}}, {PageIndex{1}}});
  EXPECT_THROW(Finish(*store, guest_.image()), Error);
}

// Interrupted by the write of the last bytes, before the next phase begins.
TEST_F(Version2StoreFileTest, TellsThatAllOfTheEndIsWritten) {
  const auto store = MakeStore();
  FileDescriptor writes(::inotify_init1(IN_CLOEXEC), "inotify");
  const std::string file = "/proc/self/fd/" + std::to_string(file_.buffered().number());
  ASSERT_GE(::inotify_add_watch(writes.number(), file.c_str(), IN_MODIFY), 0);
  Progress progress;
  EXPECT_THROW(
      store->Complete(guest_.image().frame, guest_.image().device_state, progress, Interrupt(std::move(writes))),
      Error);
  EXPECT_EQ(progress.phase(), "completing");
  EXPECT_GT(progress.total(), ByteCount{guest_.image().device_state.size()});
  EXPECT_EQ(progress.done(), progress.total());
}

TEST_F(Version2StoreFileTest, StopsWhenInterrupted) {
  const auto store = MakeStore();
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  Progress progress;
  try {
    store->Complete(guest_.image().frame, guest_.image().device_state, progress, requested);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

}  // namespace
}  // namespace vmsave
