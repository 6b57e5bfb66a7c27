#include "writer/page_spreader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <random>

#include "format/qemu_stream.h"
#include "tests/format/byte_strings.h"
#include "tests/format/memory_source.h"
#include "tests/scratch_directory.h"
#include "tests/writer/arriving_pages.h"
#include "tests/writer/image_files.h"
#include "tests/writer/late_engine.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"
#include "writer/fixed_offset_store.h"
#include "writer/raw_store.h"

namespace vmsave {
namespace {

// A sequential stream of a guest, as QEMU writes it.
class StreamOf {
 public:
  explicit StreamOf(const GuestImage& guest) : guest_(guest) {
    AppendStreamStart(out_, guest.frame, {}, guest.ram_length());
    for (const RamBlock& block : guest.blocks) AppendBlockEntry(out_, block.name, block.length());
    AppendRamSectionEnd(out_, guest.frame);
    AppendRamPart(out_, guest.frame);
  }

  void Page(std::size_t block, std::uint64_t page, std::span<const std::byte> bytes) {
    Record(block, page, true);
    out_.Append(bytes);
  }
  void Zero(std::size_t block, std::uint64_t page) {
    Record(block, page, false);
    out_.Append(Bytes(1));
  }
  // The page as the guest has it.
  void Page(std::size_t block, std::uint64_t page) {
    const auto bytes = guest_.blocks[block].memory.subspan(page * kPageBytes, kPageBytes);
    if (std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; })) {
      Zero(block, page);
    } else {
      Page(block, page, bytes);
    }
  }
  void AllPages() {
    for (std::size_t block = 0; block < guest_.blocks.size(); ++block) {
      for (std::uint64_t page = 0; page < guest_.blocks[block].pages(); ++page) Page(block, page);
    }
  }
  Bytes Finish() {
    AppendRamSectionEnd(out_, guest_.frame);
    AppendRamEnd(out_, guest_.frame);
    out_.Append(guest_.device_state);
    return out_.Take();
  }

 private:
  void Record(std::size_t block, std::uint64_t page, bool present) {
    out_.Append(MakeRecordHead(guest_.blocks[block].name, PageIndex{page}, present, block_ == block).bytes());
    block_ = block;
  }

  const GuestImage& guest_;
  ByteWriter out_;
  std::optional<std::size_t> block_;
};

// Reads streams by way of a spreader into an image.
class PageSpreaderTest : public testing::TestWithParam<unsigned> {
 protected:
  void Save(const Bytes& stream) {
    NewFile file(path_, Replace::kYes, CacheUse::kPageCache);
    PageSpreader spreader(GetParam(), [&](const StreamContents& contents) { return MakeStore(file, contents); });
    MemorySource source(stream);
    const StreamContents contents = ReadStreamUpToDevices(source, spreader);
    const std::unique_ptr<PageStore> store = spreader.Finish();
    Progress progress;
    store->Complete(contents.frame, ReadDeviceState(source), progress, Interrupt());
    file.Publish();
  }

  std::unique_ptr<PageStore> MakeStore(NewFile& file, const StreamContents& contents) {
    ArrivingGuest guest{contents.frame, {}, guest_.image().description, true};
    for (const StreamBlock& block : contents.blocks) guest.blocks.push_back({block.name, block.length});
    return MakeFixedOffsetStore(file, std::move(guest), FixedOffsetKind::kVersion3,
                                {GetParam(), EngineKind::kSync, true}, [this] {
                                  auto engine = std::make_unique<LateEngine>(3, ++engines_);
                                  if (good_writes_) engine->FailAfter(*good_writes_);
                                  return engine;
                                });
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
  std::atomic<std::uint64_t> engines_ = 0;
  std::optional<std::uint64_t> good_writes_;  // of each channel, before the first that fails
};

TEST_P(PageSpreaderTest, WritesTheBytesOfTheWriterFromMemory) {
  guest_.image().frame.switchover_start = true;  // comes behind the pages
  StreamOf stream(guest_.image());
  stream.AllPages();
  Save(stream.Finish());
  SaveImage(directory_.Path("reference.sav"), guest_.image(), 3);
  EXPECT_TRUE(ReadWholeFile(path_) == ReadWholeFile(directory_.Path("reference.sav")));
}

TEST_P(PageSpreaderTest, TakesTheCopyThatCameLast) {
  const Bytes old(kPageBytes, std::byte{0xaa});
  StreamOf stream(guest_.image());
  for (std::uint64_t page = 0; page < 100; ++page) stream.Page(0, page, old);
  for (std::uint64_t page = 50; page < 80; ++page) stream.Zero(0, page);
  stream.Page(2, 7, old);
  stream.Zero(2, 7);
  stream.Page(2, 7, old);
  stream.AllPages();
  Save(stream.Finish());
  ExpectHoldsGuest(path_, guest_.image());
}

// A guest that goes on writing to its memory, and engines that are late.
TEST_P(PageSpreaderTest, NoPageIsOvertakenByAFormerCopyOfItself) {
  std::mt19937_64 random(9);
  StreamOf stream(guest_.image());
  stream.AllPages();
  for (int i = 0; i < 20000; ++i) {
    const std::size_t block = random() % 16 == 0 ? 2 : 0;
    const std::uint64_t page = random() % 300;
    const std::span<std::byte> memory = guest_.memory(block).subspan(page * kPageBytes, kPageBytes);
    std::ranges::fill(memory, random() % 4 == 0 ? std::byte{0} : static_cast<std::byte>(random() % 255 + 1));
    stream.Page(block, page);
  }
  Save(stream.Finish());
  ExpectHoldsGuest(path_, guest_.image());
}

// Each of them waits for the one before; what else is done for it must not grow with the guest's RAM.
TEST_P(PageSpreaderTest, PagesOfMuchRamMayComeAgainAndAgain) {
  const BlockShape shape{"pc.ram", ByteCount{std::uint64_t{1} << 38}};
  StreamContents contents;
  contents.blocks.push_back({shape.name, shape.length, std::nullopt, std::nullopt, {}});
  NewFile file(path_, Replace::kYes, CacheUse::kPageCache);
  PageSpreader spreader(GetParam(), [&](const StreamContents&) {
    return MakeRawStore(file, {shape}, {{FileOffset{0}}, shape.length, {}}, {GetParam(), EngineKind::kSync, false});
  });
  spreader.OnBlocks(contents);
  const PageIndex last{shape.length.value() / kPageBytes - 1};
  for (int i = 0; i < 20000; ++i) spreader.OnZeroPage(0, last);
  std::ranges::fill(spreader.PageTarget(0, last), std::byte{7});
  Progress progress;
  EXPECT_EQ(spreader.Finish()->Complete({}, {}, progress, Interrupt()).present, kPageSize);
}

TEST_P(PageSpreaderTest, AFailedWriteReachesTheReader) {
  StreamOf stream(guest_.image());
  for (int round = 0; round < 3; ++round) stream.AllPages();
  const Bytes bytes = stream.Finish();
  for (const std::uint64_t good : {0U, 1U, 5U}) {
    good_writes_ = good;
    ExpectFailed([&] { Save(bytes); }, "Input/output error");
  }
}

TEST_P(PageSpreaderTest, AChannelThatCannotBeOpenedReachesTheReader) {
  StreamOf stream(guest_.image());
  stream.AllPages();
  const Bytes bytes = stream.Finish();
  MemorySource source(bytes);
  NewFile file(path_, Replace::kYes, CacheUse::kPageCache);
  PageSpreader spreader(GetParam(), [&](const StreamContents&) {
    return MakeFixedOffsetStore(file, Arriving(guest_.image()), FixedOffsetKind::kVersion3, {},
                                []() -> std::unique_ptr<IoEngine> { throw Error(ErrorKind::kFailed, "no", "engine"); });
  });
  ExpectFailed([&] { ReadStreamUpToDevices(source, spreader), spreader.Finish(); }, "no: engine");
}

TEST_P(PageSpreaderTest, EndsItsThreadsWhereTheStreamEndsEarly) {
  StreamOf stream(guest_.image());
  stream.AllPages();
  const Bytes bytes = stream.Finish();
  for (const std::size_t length : {bytes.size() / 3, bytes.size() / 2, bytes.size() - 700}) {
    ExpectDamaged([&] { Save(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length))); },
                  "ends early");
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_P(PageSpreaderTest, AStoreThatCannotBeMadeEndsTheReading) {
  StreamOf stream(guest_.image());
  stream.AllPages();
  const Bytes bytes = stream.Finish();
  MemorySource source(bytes);
  PageSpreader spreader(GetParam(), [](const StreamContents&) -> std::unique_ptr<PageStore> {
    throw Error(ErrorKind::kFailed, "cannot", "make it");
  });
  ExpectFailed([&] { ReadStreamUpToDevices(source, spreader); }, "cannot: make it");
}

INSTANTIATE_TEST_SUITE_P(Channels, PageSpreaderTest, testing::Values(1U, 2U, 5U), testing::PrintToStringParamName());

}  // namespace
}  // namespace vmsave
