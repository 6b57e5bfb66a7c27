#include "reader/stream_sender.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "reader/memory_loader.h"
#include "reader/verify.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

// Keeps all that was sent.
class CollectingSink : public ByteSink {
 public:
  using ByteSink::Write;
  void Write(std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) {
      const auto* bytes = static_cast<const std::byte*>(piece.iov_base);
      sent.insert(sent.end(), bytes, bytes + piece.iov_len);
    }
  }
  Bytes sent;
};

// What the version 2 writer writes for the guest, from the stream's start on.
Bytes LegacyStreamOf(const SmallGuest& guest, const ScratchDirectory& directory) {
  const std::string path = directory.Path("legacy.sav");
  SaveImage(path, guest.image(), 2);
  const Bytes file = ReadWholeFile(path);
  const std::uint64_t start = Image(path).stream_start().value();
  return {file.begin() + static_cast<std::ptrdiff_t>(start), file.end()};
}

class StreamSenderTest : public testing::TestWithParam<std::tuple<IoWay, Copy>> {};

TEST_P(StreamSenderTest, SendsTheStreamThatTheVersion2WriterWrites) {
  const auto [way, copy] = GetParam();
  const ScratchDirectory directory;
  if (const std::string reason = ReasonAgainst(way, directory); !reason.empty()) GTEST_SKIP() << reason;
  const auto [engine, cache, channels] = way;
  for (const bool switchover_start : {false, true}) {
    SmallGuest guest;
    guest.image().frame.switchover_start = switchover_start;
    WriteCopy(directory.Path("vm.sav"), guest, copy);
    CollectingSink sink;
    Progress progress;
    SendImage(Image(directory.Path("vm.sav")), sink, {channels, engine, cache}, PageChecks::kOn, progress, Interrupt());
    EXPECT_TRUE(sink.sent == LegacyStreamOf(guest, directory));
    EXPECT_EQ(progress.done(), progress.total());
  }
}

INSTANTIATE_TEST_SUITE_P(WaysAndCopies, StreamSenderTest, testing::Combine(kAllIoWays, testing::ValuesIn(kAllCopies)),
                         [](const auto& shown) {
                           return IoWayName({std::get<IoWay>(shown.param), 0}) + CopyName(std::get<Copy>(shown.param));
                         });

class SendImageTest : public testing::Test {
 protected:
  void Send(PageChecks checks, const Interrupt& interrupt = Interrupt()) {
    Progress progress;
    SendImage(Image(path_), sink_, {}, checks, progress, interrupt);
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
  CollectingSink sink_;
};

TEST_F(SendImageTest, SendsNoByteOfADamagedChunk) {
  WriteCopy(path_, guest_, Copy::kVersion3);
  const FlippedBit damage(path_, Image(path_).contents().blocks[0].mapped_ram->pages_offset + ByteCount{9}, 1);
  ExpectDamaged([&] { Send(PageChecks::kOn); }, "of RAM block pc.ram");
  EXPECT_LT(sink_.sent.size(), kPageBytes) << "only the stream's head may have been sent";
}

TEST_F(SendImageTest, SendsADamagedPageWhereNobodyWantsItChecked) {
  WriteCopy(path_, guest_, Copy::kVersion3);
  const FlippedBit damage(path_, Image(path_).contents().blocks[0].mapped_ram->pages_offset + ByteCount{9}, 1);
  Send(PageChecks::kOff);
  EXPECT_EQ(sink_.sent.size(), LegacyStreamOf(guest_, directory_).size());
}

TEST_F(SendImageTest, RefusesAStreamThatIsNotCompressedAsItsHeaderSays) {
  WriteCopy(path_, guest_, Copy::kVersion2);
  Overwrite(path_, FileOffset{28}, Hex("01000000"));
  ExpectDamaged([&] { Send(PageChecks::kOn); }, "cannot decompress");
  EXPECT_TRUE(sink_.sent.empty());
}

TEST_F(SendImageTest, StopsWhenInterrupted) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    WriteCopy(path_, guest_, copy);
    EXPECT_THROW(Send(PageChecks::kOn, Interrupt(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"))), Error);
  }
}

// The guest's RAM as an image with a stream in memory.
class SendFromMemoryTest : public testing::Test {
 protected:
  SendFromMemoryTest() {
    WriteCopy(directory_.Path("vm.sav"), guest_, Copy::kVersion3);
    const Image image(directory_.Path("vm.sav"));
    contents_ = image.contents();
  }

  Bytes Send(const std::vector<BlockMemory>& memory) const {
    CollectingSink sink;
    SendFromMemory(contents_, memory, guest_.image().device_state, sink);
    return sink.sent;
  }

  ScratchDirectory directory_;
  SmallGuest guest_;
  StreamContents contents_;
};

TEST_F(SendFromMemoryTest, SendsTheStreamThatTheVersion2WriterWrites) {
  std::vector<BlockMemory> memory;
  for (const RamBlock& block : guest_.image().blocks) memory.push_back(block.memory);
  EXPECT_TRUE(Send(memory) == LegacyStreamOf(guest_, directory_));
}

TEST_F(SendFromMemoryTest, SendsNoPageOfBlocksThatAreLeftOut) {
  const std::string path = directory_.Path("stream");
  WriteWholeFile(path, Send({{}, guest_.image().blocks[1].memory, {}}));
  const Image image(path);
  VerifyMetadata(image);
  ASSERT_EQ(image.contents().blocks.size(), 3U) << "all blocks are in the list";
  Bytes a(725 * kPageBytes);
  Bytes b(kPageBytes);
  Bytes c(300 * kPageBytes);
  Progress progress;
  const LoadedRam loaded = LoadImage(image, {{a, nullptr, {}}, {b, nullptr, {}}, {c, nullptr, {}}}, {}, PageChecks::kOn,
                                     progress, Interrupt());
  EXPECT_EQ(loaded.contents.blocks[0].present.CountSet(), 0U);
  EXPECT_TRUE(std::ranges::equal(b, guest_.image().blocks[1].memory));
  EXPECT_EQ(loaded.contents.blocks[2].present.CountSet(), 0U);
  EXPECT_TRUE(std::ranges::equal(loaded.device_state, guest_.image().device_state));
  EXPECT_LT(image.file_length(), ByteCount{2 * kPageBytes});
}

TEST_F(SendFromMemoryTest, SendsTheDeviceStateAloneWhereAllBlocksAreLeftOut) {
  const Bytes sent = Send({{}, {}, {}});
  const auto& device_state = guest_.image().device_state;
  ASSERT_GT(sent.size(), device_state.size());
  EXPECT_TRUE(std::ranges::equal(std::span(sent).last(device_state.size()), device_state));
}

}  // namespace
}  // namespace vmsave
