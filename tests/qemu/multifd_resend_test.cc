// Pages come again and again, each time over another channel, as a live migration of QEMU sends them.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "qemu/multifd_receiver.h"
#include "tests/qemu/multifd_peer.h"
#include "tests/qemu/patience.h"
#include "tests/qemu/running_qemu.h"
#include "tests/writer/arriving_pages.h"
#include "tests/writer/late_engine.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"
#include "writer/fixed_offset_store.h"

namespace vmsave {
namespace {

constexpr unsigned kChannels = 4;
constexpr std::uint64_t kFirstBlockPages = 1200;
constexpr std::uint64_t kPages = 2000;
constexpr std::uint64_t kRounds = kPages;

// Pages change for so many rounds, each round's end begins with another page: every round has pages of which it brings
// the last version, and none of them may be overtaken by the one before.
constexpr std::uint64_t kWindow = 24;

enum class SyncStyle { kSections, kFlushes, kFlushesWithoutAFirst };
enum class StoreKind { kVersion2, kVersion3 };

struct PagePlace {
  std::size_t block;
  std::uint64_t page;
};

PagePlace PlaceOf(std::uint64_t number) {
  return number < kFirstBlockPages ? PagePlace{0, number} : PagePlace{1, number - kFirstBlockPages};
}

// A page that tells which one it is, and of which round.
void WriteVersion(std::span<std::byte> bytes, std::uint64_t number, std::uint64_t round) {
  for (std::size_t at = 0; at < bytes.size(); at += 16) {
    PutLittleEndian<std::uint64_t>(bytes.subspan(at), number + 1);
    PutLittleEndian<std::uint64_t>(bytes.subspan(at + 8), round);
  }
}

// Sends all rounds of a guest, whose memory is what the last version of every page makes of it.
class ChangingGuest {
 public:
  ChangingGuest(SmallGuest& guest, MultifdPeer& peer, SyncStyle style)
      : guest_(guest), peer_(peer), style_(style), frame_(guest.image().frame) {
    for (std::size_t block = 0; block < guest.image().blocks.size(); ++block) {
      std::ranges::fill(guest.memory(block), std::byte{0});
      shapes_.push_back({guest.image().blocks[block].name, guest.image().blocks[block].length()});
    }
  }

  void SendAllRounds() {
    SendStart();
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      SendRound(round);
      EndRound(round);
    }
    if (style_ == SyncStyle::kSections) SendSyncs();
    peer_.SendMain(EndOfSection(frame_));
    // The point of the last section; or as QEMU 9.1 and 9.2, which send one that belongs to nothing.
    if (style_ != SyncStyle::kFlushesWithoutAFirst) SendSyncs();
    peer_.SendMain(EndOfRam(frame_));
    peer_.SendMain(guest_.image().device_state);
    peer_.CloseAll();
  }

 private:
  void SendStart() {
    peer_.SendMain(StreamStart(frame_, shapes_));
    if (style_ != SyncStyle::kFlushesWithoutAFirst) SendSyncs();
    if (style_ == SyncStyle::kFlushes) peer_.SendMain(MultifdFlush());
    peer_.SendMain(EndOfSection(frame_));
    peer_.SendMain(OpenPart(frame_));
  }

  enum class Change { kContent, kZeroInPacket, kZeroInMainStream };

  Change RandomChange(std::uint64_t round) {
    const std::uint64_t dice = random_() % 8;
    if (round == 0 || dice < 6) return Change::kContent;
    return dice == 6 ? Change::kZeroInPacket : Change::kZeroInMainStream;
  }

  void SendRound(std::uint64_t round) {
    for (const std::uint64_t number : PagesOf(round)) {
      const Change change = RandomChange(round);
      const PagePlace place = PlaceOf(number);
      const auto memory = guest_.memory(place.block).subspan(place.page * kPageBytes, kPageBytes);
      std::ranges::fill(memory, std::byte{0});
      if (change == Change::kContent) WriteVersion(memory, number, round);
      if (change == Change::kZeroInMainStream) {
        peer_.SendMain(ZeroRecord(shapes_[place.block].name, place.page));
      } else {
        AddToPacket(RandomChannel(round), place, change == Change::kZeroInPacket);
      }
    }
    for (unsigned channel = 0; channel < kChannels; ++channel) SendPacket(channel);
  }

  // In any order. No page comes twice.
  std::vector<std::uint64_t> PagesOf(std::uint64_t round) {
    std::vector<std::uint64_t> numbers;
    for (std::uint64_t number = round; number < std::min(round + kWindow, kPages); ++number) {
      if (number == round || random_() % 2 == 0) numbers.push_back(number);
    }
    std::ranges::shuffle(numbers, random_);
    return numbers;
  }

  // The last channel gets no pages at first: its first packet is always a SYNC.
  std::size_t RandomChannel(std::uint64_t round) { return random_() % (round == 0 ? kChannels - 1 : kChannels); }

  struct OpenPacket {
    std::size_t block = 0;
    std::vector<std::uint64_t> normal;
    std::vector<std::uint64_t> zero;
  };

  void AddToPacket(std::size_t channel, PagePlace place, bool zero) {
    OpenPacket& open = open_[channel];
    if (open.block != place.block || random_() % 4 == 0) SendPacket(channel);
    open.block = place.block;
    (zero ? open.zero : open.normal).push_back(place.page);
  }

  void SendPacket(std::size_t channel) {
    OpenPacket& open = open_[channel];
    if (open.normal.empty() && open.zero.empty()) return;
    MultifdPacket packet;
    packet.Start(++packets_, shapes_[open.block].name);
    Bytes content;
    for (const std::uint64_t page : open.normal) {
      packet.AddNormal(PageIndex{page});
      const auto memory = guest_.memory(open.block).subspan(page * kPageBytes, kPageBytes);
      content.insert(content.end(), memory.begin(), memory.end());
    }
    for (const std::uint64_t page : open.zero) packet.AddZero(PageIndex{page});
    peer_.SendChannel(channel, Join({EncodePacket(packet), content}));
    open = {};
  }

  void EndRound(std::uint64_t round) {
    SendSyncs();
    const bool section_ends = style_ == SyncStyle::kSections || round % 5 == 0;
    if (style_ != SyncStyle::kSections) peer_.SendMain(MultifdFlush());
    if (section_ends) peer_.SendMain(Join({EndOfSection(frame_), OpenPart(frame_)}));
  }

  void SendSyncs() { peer_.SendEachChannel(SyncPacket()); }

  SmallGuest& guest_;
  MultifdPeer& peer_;
  SyncStyle style_;
  const StreamFrame frame_;
  std::vector<BlockShape> shapes_;
  std::array<OpenPacket, kChannels> open_;
  std::uint64_t packets_ = 0;
  std::mt19937_64 random_{1};
};

class MultifdResendTest : public testing::TestWithParam<std::tuple<SyncStyle, StoreKind>> {
 protected:
  std::unique_ptr<PageStore> MakeStore(NewFile& file, ArrivingGuest guest) {
    const WriteOptions options{kChannels, EngineKind::kSync, true};
    if (std::get<1>(GetParam()) == StoreKind::kVersion2) return MakeVersion2Store(file, std::move(guest), options);
    return MakeFixedOffsetStore(file, std::move(guest), FixedOffsetKind::kVersion3, options,
                                [this] { return std::make_unique<LateEngine>(3, ++engines_); });
  }

 private:
  std::atomic<std::uint64_t> engines_ = 0;
};

TEST_P(MultifdResendTest, EveryPageHoldsItsLastVersion) {
  const ScratchDirectory directory;
  const std::string path = directory.Path("vm.sav");
  const Interrupt interrupt = InterruptOfHangingTest();
  SmallGuest guest({{"pc.ram", kFirstBlockPages}, {"vga.vram", kPages - kFirstBlockPages}});
  NewFile file(path, Replace::kNo, CacheUse::kPageCache);
  MultifdPeer peer(kChannels);
  MultifdSockets sockets = peer.TakeReceivingEnds();
  ChangingGuest changing(guest, peer, std::get<0>(GetParam()));
  std::jthread sender([&] { changing.SendAllRounds(); });
  // Destroyed before the sender is waited for, which then does not wait for it.
  MultifdReceiver receiver(std::move(sockets), [&](const StreamContents& contents) {
    EXPECT_EQ(contents.blocks.size(), guest.image().blocks.size());
    return MakeStore(file, Arriving(guest.image()));
  });
  RunChannels(kChannels + 1, interrupt, [&](const ChannelContext& context) {
    if (context.channel() == kChannels) {
      receiver.ReceiveMain(context);
    } else {
      receiver.ReceiveChannel(context.channel(), context);
    }
  });
  sender.join();
  Progress progress;
  receiver.store().Complete(receiver.guest().contents.frame, receiver.guest().device_state, progress, interrupt);
  file.Publish();
  ExpectHoldsGuest(path, guest.image());
}

std::string StressName(const testing::TestParamInfo<std::tuple<SyncStyle, StoreKind>>& shown) {
  constexpr std::array kStyles{"Sections", "Flushes", "FlushesWithoutAFirst"};
  const auto [style, store] = shown.param;
  return std::string(kStyles[static_cast<std::size_t>(style)]) + (store == StoreKind::kVersion2 ? "2" : "3");
}

INSTANTIATE_TEST_SUITE_P(Stores, MultifdResendTest,
                         testing::Combine(testing::Values(SyncStyle::kSections, SyncStyle::kFlushes,
                                                          SyncStyle::kFlushesWithoutAFirst),
                                          testing::Values(StoreKind::kVersion2, StoreKind::kVersion3)),
                         StressName);

}  // namespace
}  // namespace vmsave
