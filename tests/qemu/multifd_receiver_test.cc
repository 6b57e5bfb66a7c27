#include "qemu/multifd_receiver.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <thread>

#include "tests/qemu/multifd_peer.h"
#include "tests/qemu/patience.h"
#include "tests/qemu/running_qemu.h"
#include "tests/writer/arriving_pages.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"

namespace vmsave {
namespace {

constexpr unsigned kChannels = 2;
constexpr std::size_t kVersionAt = 4;
constexpr std::size_t kFlagsAt = 8;
constexpr std::size_t kNormalPagesAt = 16;
constexpr std::uint64_t kPages = 16;  // of pc.ram

// A sender that says what the test has it say, and a store that takes what is taken. All that is sent fits into the
// sockets, and the other connections stay open and silent unless the test says otherwise: what goes wrong on one must
// end the threads of all.
class MultifdReceiverTest : public testing::Test {
 protected:
  MultifdReceiverTest() {
    for (std::size_t block = 0; block < 2; ++block) std::ranges::fill(guest_.memory(block), std::byte{0});
  }

  void Receive(const Interrupt& interrupt) {
    receiver_.emplace(peer_.TakeReceivingEnds(), [&](const StreamContents&) { return make_store_(); });
    RunChannels(kChannels + 1, interrupt, [&](const ChannelContext& context) {
      if (context.channel() == kChannels) {
        receiver_->ReceiveMain(context);
      } else {
        receiver_->ReceiveChannel(context.channel(), context);
      }
    });
  }

  void ExpectRefused(ErrorKind kind, std::string_view words) {
    try {
      Receive(interrupt_);
      ADD_FAILURE() << "was taken; expected: " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
    }
    receiver_.reset();
  }

  void ExpectReceived() {
    Receive(interrupt_);
    Progress progress;
    receiver_->store().Complete(receiver_->guest().contents.frame, receiver_->guest().device_state, progress,
                                interrupt_);
    file_.Publish();
    ExpectHoldsGuest(directory_.Path("vm.sav"), guest_.image());
  }

  void FillPage(std::size_t block, std::uint64_t page, std::uint8_t fill) {
    std::ranges::fill(guest_.memory(block).subspan(page * kPageBytes, kPageBytes), static_cast<std::byte>(fill));
  }

  std::vector<BlockShape> shapes() const { return Arriving(guest_.image()).blocks; }
  const StreamFrame& frame() const { return guest_.image().frame; }
  Bytes Start() const { return StreamStart(frame(), shapes()); }
  Bytes SectionEnd() const { return EndOfSection(frame()); }

  // The block list and its sync point, as QEMU >= 8.1 sends them.
  void SendStart() {
    peer_.SendMain(Join({Start(), MultifdFlush(), SectionEnd(), OpenPart(frame())}));
    peer_.SendEachChannel(SyncPacket());
  }

  // The rest behind a sync point.
  void SendEnd() {
    peer_.SendMain(Join({SectionEnd(), EndOfRam(frame()), guest_.image().device_state}));
    peer_.CloseAll();
  }

  const Interrupt interrupt_ = InterruptOfHangingTest();
  const ScratchDirectory directory_;
  NewFile file_{directory_.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache};
  SmallGuest guest_{{{"pc.ram", kPages}, {"vga.vram", 4}}};
  MultifdPeer peer_{kChannels};
  std::function<std::unique_ptr<PageStore>()> make_store_ = [this] {
    return MakeVersion3Store(file_, Arriving(guest_.image()), {kChannels, EngineKind::kSync, true});
  };
  std::optional<MultifdReceiver> receiver_;
};

TEST_F(MultifdReceiverTest, TakesPagesFromChannelsAndFromTheMainStream) {
  SendStart();
  peer_.SendChannel(0, Join({PagesPacket("pc.ram", {3, 1}), FilledPage(3), FilledPage(1)}));
  peer_.SendChannel(1, Join({PagesPacket("vga.vram", {0}), FilledPage(9), PagesPacket("pc.ram", {7}), FilledPage(7)}));
  peer_.SendMain(Join({PageRecord("pc.ram", 15, FilledPage(15)), ZeroRecord("pc.ram", 4), ZeroRecord("vga.vram", 1)}));
  for (const std::uint8_t page : std::initializer_list<std::uint8_t>{1, 3, 7, 15}) FillPage(0, page, page);
  FillPage(1, 0, 9);
  SendEnd();
  ExpectReceived();
}

TEST_F(MultifdReceiverTest, PagesThatComeBeforeTheBlockListWaitForIt) {
  std::jthread sender([&] {
    peer_.SendChannel(0, PagesPacket("pc.ram", {5}));
    WaitUntilRead(peer_.channel(0));
    peer_.SendMain(Join({Start(), SectionEnd(), OpenPart(frame())}));
    peer_.SendChannel(0, FilledPage(5));
    SendEnd();
  });
  FillPage(0, 5, 5);
  ExpectReceived();
}

TEST_F(MultifdReceiverTest, APageThatIsZeroTwiceIsZero) {
  SendStart();
  peer_.SendMain(Join({ZeroRecord("pc.ram", 4), ZeroRecord("pc.ram", 4)}));
  SendEnd();
  ExpectReceived();
}

// QEMU 9.1 and 9.2 send it.
TEST_F(MultifdReceiverTest, ALastSyncThatNothingAnswersIsPassedOnceRamIsOver) {
  SendStart();
  peer_.SendEachChannel(SyncPacket());
  SendEnd();
  ExpectReceived();
}

TEST_F(MultifdReceiverTest, RefusesPagesOfAnUnknownBlock) {
  SendStart();
  peer_.SendChannel(1, Join({PagesPacket("nvram", {0}), FilledPage(1)}));
  ExpectRefused(ErrorKind::kDamaged, "multifd channel 1: packet 7 is of RAM block \"nvram\", which is not in the list");
}

TEST_F(MultifdReceiverTest, RefusesAPageBehindTheEndOfItsBlock) {
  SendStart();
  peer_.SendChannel(0, Join({PagesPacket("pc.ram", {kPages}), FilledPage(1)}));
  ExpectRefused(ErrorKind::kDamaged, "page 16 lies beyond the end of block pc.ram");
}

TEST_F(MultifdReceiverTest, RefusesAZeroPageBehindTheEndOfItsBlock) {
  SendStart();
  MultifdPacket packet;
  packet.Start(8, "pc.ram");
  packet.AddZero(PageIndex{std::uint64_t{1} << 51});
  peer_.SendChannel(0, EncodePacket(packet));
  ExpectRefused(ErrorKind::kDamaged, "lies beyond the end of block pc.ram");
}

TEST_F(MultifdReceiverTest, RefusesAZeroRecordBehindTheEndOfItsBlock) {
  SendStart();
  peer_.SendMain(ZeroRecord("pc.ram", kPages));
  ExpectRefused(ErrorKind::kDamaged, "a page lies behind the end of RAM block \"pc.ram\"");
}

TEST_F(MultifdReceiverTest, RefusesWrongPackets) {
  struct WrongField {
    std::size_t at;
    std::string_view hex;
    std::string_view words;
  };
  for (const WrongField& wrong : {
           WrongField{0, "51455641", "it starts with 51455641 instead of 11223344"},
           WrongField{kVersionAt, "00000002", "version 2 is not known"},
           WrongField{kFlagsAt, "00000002", "compressed multifd (zlib) is not supported"},
           WrongField{kFlagsAt, "00000040", "device state in multifd channels (VFIO) is not supported"},
           WrongField{kNormalPagesAt, "00000081", "it has 129 normal and 0 zero pages; a packet holds 128"},
       }) {
    peer_ = MultifdPeer(kChannels);
    Bytes packet = PagesPacket("pc.ram", {0});
    Place(packet, wrong.at, Hex(wrong.hex));
    SendStart();
    peer_.SendChannel(0, packet);
    ExpectRefused(ErrorKind::kDamaged, wrong.words);
  }
}

TEST_F(MultifdReceiverTest, AChannelThatEndsInAPacketIsAnError) {
  SendStart();
  peer_.SendChannel(1, std::span<const std::byte>(PagesPacket("pc.ram", {0})).first(1000));
  peer_.channel(1) = FileDescriptor();
  ExpectRefused(ErrorKind::kDamaged, "cannot read multifd channel 1: it ends early");
}

TEST_F(MultifdReceiverTest, AChannelThatEndsInAPageIsAnError) {
  SendStart();
  peer_.SendChannel(1, Join({PagesPacket("pc.ram", {0, 1}), FilledPage(0), Bytes(100)}));
  peer_.channel(1) = FileDescriptor();
  ExpectRefused(ErrorKind::kDamaged, "cannot read multifd channel 1: it ends early");
}

TEST_F(MultifdReceiverTest, AChannelThatEndsBetweenPacketsIsAnErrorWhereOthersWaitForIt) {
  SendStart();
  peer_.SendChannel(1, Join({PagesPacket("pc.ram", {0}), FilledPage(0)}));
  peer_.channel(1) = FileDescriptor();
  peer_.SendChannel(0, SyncPacket());
  peer_.SendMain(MultifdFlush());
  ExpectRefused(ErrorKind::kDamaged, "one of its multifd channels was closed in the middle");
}

TEST_F(MultifdReceiverTest, ASyncOnOneChannelAloneIsAnErrorOnceTheOthersHaveEnded) {
  peer_.SendChannel(0, SyncPacket());
  peer_.SendMain(Join({Start(), SectionEnd(), OpenPart(frame()), SectionEnd()}));
  peer_.channel(0) = FileDescriptor();
  peer_.channel(1) = FileDescriptor();
  ExpectRefused(ErrorKind::kDamaged, "one of its multifd channels was closed in the middle");
}

TEST_F(MultifdReceiverTest, RefusesAFlushWhereSectionsAreTheSyncPoints) {
  peer_.SendMain(Join({Start(), SectionEnd(), OpenPart(frame()), SectionEnd(), OpenPart(frame()), MultifdFlush()}));
  peer_.SendEachChannel(Join({SyncPacket(), SyncPacket()}));
  ExpectRefused(ErrorKind::kDamaged, "it has MULTIFD_FLUSH records, but its channels are in step with its sections");
}

// The channels wait for the block list, and it would wait for the channels.
TEST_F(MultifdReceiverTest, RefusesAFlushInFrontOfTheBlockList) {
  Bytes start = Start();
  const std::size_t list = start.size() - (8 + (1 + 6 + 8) + (1 + 8 + 8));  // total, pc.ram, vga.vram
  peer_.SendMain(Join({std::span(start).first(list), MultifdFlush(), std::span(start).subspan(list)}));
  peer_.SendEachChannel(Join({PagesPacket("pc.ram", {0}), FilledPage(1)}));
  ExpectRefused(ErrorKind::kDamaged, "a MULTIFD_FLUSH comes before the block list");
}

TEST_F(MultifdReceiverTest, AMainStreamThatEndsBeforeRamDoesIsAnError) {
  SendStart();
  peer_.main() = FileDescriptor();
  ExpectRefused(ErrorKind::kDamaged, "cannot read the guest's migration stream: it ends early");
}

TEST_F(MultifdReceiverTest, NoMainStreamAtAllIsAnErrorForChannelsThatWaitForItsBlockList) {
  peer_.SendEachChannel(Join({PagesPacket("pc.ram", {0}), FilledPage(1)}));
  peer_.main() = FileDescriptor();
  ExpectRefused(ErrorKind::kDamaged, "cannot read the guest's migration stream: it ends early");
}

TEST_F(MultifdReceiverTest, RefusesADeviceStateThatIsTooLarge) {
  std::jthread sender([&] {
    SendStart();
    peer_.SendMain(Join({SectionEnd(), EndOfRam(frame())}));
    const Bytes piece(1 << 20);
    for (std::uint64_t sent = 0; sent <= kMaxDeviceStateBytes; sent += piece.size()) peer_.SendMain(piece);
  });
  ExpectRefused(ErrorKind::kDamaged, "its device state is larger than 512 MiB");
}

TEST_F(MultifdReceiverTest, AStoreThatCannotBeMadeIsAnErrorForChannelsThatWaitForIt) {
  make_store_ = []() -> std::unique_ptr<PageStore> { throw Error(ErrorKind::kFailed, "cannot make it", "no space"); };
  SendStart();
  peer_.SendEachChannel(Join({PagesPacket("pc.ram", {0}), FilledPage(1)}));
  ExpectRefused(ErrorKind::kFailed, "no space");
}

TEST_F(MultifdReceiverTest, GivesWayToTheInterruptWhereNobodySendsAnything) {
  try {
    Receive(RequestedInterrupt());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

TEST_F(MultifdReceiverTest, GivesWayToTheInterruptWhereAllWaitForEachOther) {
  peer_.SendChannel(0, SyncPacket());
  peer_.SendChannel(1, Join({PagesPacket("pc.ram", {0}), FilledPage(1)}));
  const FileDescriptor come(::eventfd(0, EFD_CLOEXEC), "eventfd");
  const Interrupt interrupt(FileDescriptor(::dup(come.number()), "eventfd"));
  std::jthread operator_thread([&] {
    WaitUntilRead(peer_.channel(0));
    ::eventfd_write(come.number(), 1);
  });
  try {
    Receive(interrupt);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

}  // namespace
}  // namespace vmsave
