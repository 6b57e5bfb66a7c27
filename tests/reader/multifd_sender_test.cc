#include "reader/multifd_sender.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "tests/reader/image_copies.h"
#include "tests/reader/multifd_receiver.h"
#include "tests/scratch_directory.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

constexpr std::byte kGarbage{0xee};
constexpr QemuSyncs kAllQemus[] = {QemuSyncs::kAtSections, QemuSyncs::kAtFlushes, QemuSyncs::kAtFlushesAndSections};

void Send(const std::string& path, MultifdCollector& collector, QemuSyncs syncs, std::set<std::string> zero_blocks = {},
          const ReadOptions& options = {}) {
  Progress progress;
  SendImageOverMultifd(Image(path), collector.receiver(SyncAtFor(syncs), std::move(zero_blocks)), options,
                       PageChecks::kOn, progress, Interrupt());
  EXPECT_EQ(progress.done(), progress.total());
}

void ExpectEqual(const ReassembledGuest& received, const GuestImage& guest) {
  for (const RamBlock& block : guest.blocks) {
    EXPECT_TRUE(std::ranges::equal(received.memory(block.name), block.memory)) << block.name;
  }
  EXPECT_TRUE(std::ranges::equal(received.device_state(), guest.device_state));
}

class MultifdSenderTest : public testing::TestWithParam<std::tuple<IoWay, Copy>> {};

TEST_P(MultifdSenderTest, EveryQemuEndsWithExactlyTheImagesMemory) {
  const auto [way, copy] = GetParam();
  const ScratchDirectory directory;
  if (const std::string reason = ReasonAgainst(way, directory); !reason.empty()) GTEST_SKIP() << reason;
  const auto [engine, cache, channels] = way;
  const SmallGuest guest;
  WriteCopy(directory.Path("vm.sav"), guest, copy);
  for (const QemuSyncs syncs : kAllQemus) {
    for (const std::set<std::string>& zero_blocks : {std::set<std::string>{}, {"pc.ram", "vga.vram"}}) {
      MultifdCollector collector(channels);
      Send(directory.Path("vm.sav"), collector, syncs, zero_blocks, {channels, engine, cache});
      ExpectEqual(ReassembledGuest(collector, syncs, zero_blocks, kGarbage), guest.image());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WaysAndCopies, MultifdSenderTest, testing::Combine(kAllIoWays, testing::ValuesIn(kAllCopies)),
                         [](const auto& shown) {
                           return IoWayName({std::get<IoWay>(shown.param), 0}) + CopyName(std::get<Copy>(shown.param));
                         });

class SendOverMultifdTest : public testing::Test {
 protected:
  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
};

TEST_F(SendOverMultifdTest, LeavesOutAbsentPagesOfBlocksThatAreZero) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    const std::set<std::string> all{"pc.ram", "pc.bios", "vga.vram"};
    MultifdCollector collector(2);
    Send(path_, collector, QemuSyncs::kAtFlushes, all);
    EXPECT_EQ(ReassembledGuest(collector, QemuSyncs::kAtFlushes, all, kGarbage).zero_records(), 0U);
  }
}

TEST_F(SendOverMultifdTest, PacketsHoldPagesThatAreNoNeighbours) {
  WriteCopy(path_, guest_, Copy::kVersion3);
  const Image image(path_);
  MultifdCollector collector(1);
  Send(path_, collector, QemuSyncs::kAtFlushes);
  std::uint64_t present = 0;
  std::uint64_t chunks = 0;
  for (const StreamBlock& block : image.contents().blocks) {
    present += block.present.CountSet();
    chunks += (block.pages() + kWorkPages - 1) / kWorkPages;
  }
  const ReassembledGuest received(collector, QemuSyncs::kAtFlushes, {}, kGarbage);
  EXPECT_LE(received.packets(), present / kMultifdPagesPerPacket + chunks + 4);
}

TEST_F(SendOverMultifdTest, AStreamWithoutRepeatedPagesNeedsNoMoreSyncsThanFixedOffsets) {
  std::vector<std::size_t> sync_points;
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    MultifdCollector collector(3);
    Send(path_, collector, QemuSyncs::kAtFlushes);
    sync_points.push_back(ReassembledGuest(collector, QemuSyncs::kAtFlushes, {}, kGarbage).sync_points());
  }
  EXPECT_EQ(sync_points, (std::vector<std::size_t>{2, 2}));
}

TEST_F(SendOverMultifdTest, TellsWhichPagesArePresent) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    MultifdCollector collector(2);
    Progress progress;
    const StreamContents sent = SendImageOverMultifd(Image(path_), collector.receiver(SyncAt::kFlush, {"pc.ram"}), {},
                                                     PageChecks::kOn, progress, Interrupt());
    ASSERT_EQ(sent.blocks.size(), guest_.image().blocks.size());
    for (std::size_t block = 0; block < sent.blocks.size(); ++block) {
      for (std::uint64_t page = 0; page < sent.blocks[block].pages(); ++page) {
        ASSERT_EQ(sent.blocks[block].present.Test(page), guest_.IsPresent(block, page)) << CopyName(copy) << page;
      }
    }
  }
}

TEST_F(SendOverMultifdTest, SendsSwitchoverStartWhereTheImageHasIt) {
  guest_.image().frame.switchover_start = true;
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    MultifdCollector collector(1);
    Send(path_, collector, QemuSyncs::kAtFlushes);
    ByteWriter end;
    AppendRamEnd(end, guest_.image().frame);
    const Bytes wanted = Join({end.Take(), guest_.image().device_state});
    ASSERT_GT(collector.main().size(), wanted.size());
    EXPECT_TRUE(std::ranges::equal(std::span(collector.main()).last(wanted.size()), wanted));
  }
}

TEST_F(SendOverMultifdTest, SendsNoByteOfADamagedChunkAndNoDeviceState) {
  WriteCopy(path_, guest_, Copy::kVersion3);
  const FlippedBit damage(path_, Image(path_).contents().blocks[0].mapped_ram->pages_offset + ByteCount{9}, 1);
  MultifdCollector collector(4);
  ExpectDamaged([&] { Send(path_, collector, QemuSyncs::kAtFlushes); }, "of RAM block pc.ram");
  const auto& state = guest_.image().device_state;
  EXPECT_TRUE(std::ranges::search(collector.main(), state).empty());
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(std::ranges::search(collector.channel(i), guest_.memory(0).subspan(10, 500)).empty());
  }
}

TEST_F(SendOverMultifdTest, RefusesAStreamThatIsNotCompressedAsItsHeaderSays) {
  WriteCopy(path_, guest_, Copy::kVersion2);
  Overwrite(path_, FileOffset{28}, Hex("01000000"));
  MultifdCollector collector(1);
  ExpectDamaged([&] { Send(path_, collector, QemuSyncs::kAtFlushes); }, "cannot decompress");
  EXPECT_TRUE(collector.main().empty());
}

TEST_F(SendOverMultifdTest, StopsWhenInterrupted) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    MultifdCollector collector(2);
    Progress progress;
    const Interrupt interrupt(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
    EXPECT_THROW(SendImageOverMultifd(Image(path_), collector.receiver(SyncAt::kFlush, {}), {}, PageChecks::kOn,
                                      progress, interrupt),
                 Error);
  }
}

// Takes nothing.
class BrokenSink : public ByteSink {
 public:
  void Write(std::span<const iovec>) override { throw Error(ErrorKind::kFailed, "cannot send", "broken"); }
};

// Only SYNC packets arrive.
class BrokenForPagesSink : public ByteSink {
 public:
  void Write(std::span<const iovec> pieces) override {
    if (pieces.size() > 1) throw Error(ErrorKind::kFailed, "cannot send", "broken");
  }
};

TEST_F(SendOverMultifdTest, EndsWithTheFailureOfAnyChannelOrOfTheMainStream) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    MultifdCollector collector(1);
    BrokenSink broken;
    BrokenForPagesSink broken_for_pages;
    MultifdTarget no_main{broken, collector.receiver(SyncAt::kFlush, {}).channels};
    MultifdTarget no_pages{collector.receiver(SyncAt::kFlush, {}).main, {&broken_for_pages, &broken_for_pages}};
    for (const MultifdTarget* receiver : {&no_main, &no_pages}) {
      Progress progress;
      try {
        SendImageOverMultifd(Image(path_), *receiver, {}, PageChecks::kOn, progress, Interrupt());
        ADD_FAILURE();
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "cannot send: broken");
      }
    }
  }
}

// A stream as a live save makes it: pages come again, as others or as zero.
class LiveStream {
 public:
  static constexpr std::uint64_t kPages = 1000;

  LiveStream() {
    AppendLegacyHead(stream_, {.machine = "pc-i440fx-7.2", .ram_section_id = 2},
                     std::vector<BlockShape>{{"pc.ram", ByteCount{kPages * kPageBytes}},
                                             {"pc.bios", ByteCount{kPages * kPageBytes}}});
  }

  void Page(std::uint64_t page, unsigned content) {
    const Bytes bytes = Content(content);
    Record(page, content != 0);
    if (content == 0) {
      stream_.AppendZeros(1);
    } else {
      stream_.Append(bytes);
    }
    std::ranges::copy(bytes, memory_.begin() + static_cast<std::ptrdiff_t>(page * kPageBytes));
  }

  void WriteTo(const std::string& path) {
    AppendLegacyTail(stream_, {.machine = "pc-i440fx-7.2", .ram_section_id = 2}, MakeDeviceState());
    WriteWholeFile(path, stream_.Take());
  }

  const Bytes& memory() const { return memory_; }

 private:
  static Bytes Content(unsigned content) {
    Bytes bytes(kPageBytes);
    for (std::size_t i = 0; i < kPageBytes && content != 0; ++i) bytes[i] = static_cast<std::byte>(i * 7 + content);
    return bytes;
  }

  void Record(std::uint64_t page, bool present) {
    stream_.Append(MakeRecordHead("pc.ram", PageIndex{page}, present, false).bytes());
  }

  ByteWriter stream_;
  Bytes memory_ = Bytes(kPages * kPageBytes, kGarbage);
};

// Sends the stream to each kind of QEMU and compares its memory; returns the sync points of the last.
std::size_t ExpectArrives(LiveStream& live, const std::set<std::string>& zero_blocks) {
  const ScratchDirectory directory;
  live.WriteTo(directory.Path("live"));
  std::size_t sync_points = 0;
  for (const QemuSyncs syncs : {QemuSyncs::kAtSections, QemuSyncs::kAtFlushesAndSections, QemuSyncs::kAtFlushes}) {
    MultifdCollector collector(4);
    Send(directory.Path("live"), collector, syncs, zero_blocks);
    const ReassembledGuest received(collector, syncs, zero_blocks, kGarbage);
    EXPECT_TRUE(received.memory("pc.ram") == live.memory());
    sync_points = received.sync_points();
  }
  return sync_points;
}

TEST(LiveStreamTest, EachRoundOfPagesThatComeAgainIsOneSync) {
  LiveStream live;
  for (unsigned round = 1; round <= 3; ++round) {
    for (std::uint64_t page = 0; page < LiveStream::kPages; ++page) live.Page(page, round);
  }
  EXPECT_EQ(ExpectArrives(live, {}), 4U);
}

TEST(LiveStreamTest, ThePageThatCameLastCountsWhateverItWasBefore) {
  for (const std::set<std::string>& zero_blocks : {std::set<std::string>{}, {"pc.ram"}}) {
    LiveStream live;
    for (std::uint64_t page = 0; page < LiveStream::kPages; ++page) live.Page(page, page % 5 == 0 ? 0 : 1);
    for (std::uint64_t page = 0; page < LiveStream::kPages; page += 3) live.Page(page, 0);
    for (std::uint64_t page = 0; page < LiveStream::kPages; page += 7) live.Page(page, 2);
    for (std::uint64_t page = 0; page < LiveStream::kPages; page += 11) live.Page(page, 0);
    ExpectArrives(live, zero_blocks);
  }
}

TEST(LiveStreamTest, OnePageThatComesOverAndOver) {
  LiveStream live;
  for (std::uint64_t page = 0; page < LiveStream::kPages; ++page) live.Page(page, 0);
  for (unsigned i = 0; i < 50; ++i) live.Page(17, i % 4);
  ExpectArrives(live, {});
}

}  // namespace
}  // namespace vmsave
