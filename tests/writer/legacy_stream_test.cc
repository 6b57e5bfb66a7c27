#include "writer/legacy_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/format/golden.h"
#include "tests/writer/small_guest.h"
#include "writer/ram_scan.h"

namespace vmsave {
namespace {

std::vector<PageBitmap> PresentPages(const SmallGuest& guest) {
  std::vector<PageBitmap> present = EmptyBitmaps(guest.image().blocks);
  for (std::size_t block = 0; block < present.size(); ++block) {
    for (std::uint64_t page = 0; page < present[block].pages(); ++page) {
      if (guest.IsPresent(block, page)) present[block].Set(page);
    }
  }
  return present;
}

// The stream from its first record to its last, one after another, as FORMAT.md has them.
void AppendRecords(const RamBlock& block, const PageBitmap& present, ByteWriter& out) {
  for (std::uint64_t page = 0; page < block.pages(); ++page) {
    const std::uint64_t flags = (present.Test(page) ? 0x08 : 0x02) | (page == 0 ? 0 : 0x20);
    out.AppendBigEndian<std::uint64_t>(page * 4096 | flags);
    if (page == 0) {
      out.AppendBigEndian(static_cast<std::uint8_t>(block.name.size()));
      out.Append(block.name);
    }
    if (present.Test(page)) {
      out.Append(block.memory.subspan(page * 4096, 4096));
    } else {
      out.AppendZeros(1);
    }
  }
}

Bytes WholeStreamPlainly(const Bytes& before, const SmallGuest& guest, const std::vector<PageBitmap>& present) {
  const GuestImage& image = guest.image();
  ByteWriter out;
  out.Append(before);
  AppendStreamStart(out, image.frame, {}, image.ram_length());
  for (const RamBlock& block : image.blocks) AppendBlockEntry(out, block.name, block.length());
  AppendRamSectionEnd(out, image.frame);
  AppendRamPart(out, image.frame);
  for (std::size_t i = 0; i < image.blocks.size(); ++i) AppendRecords(image.blocks[i], present[i], out);
  AppendRamSectionEnd(out, image.frame);
  AppendRamEnd(out, image.frame);
  out.Append(image.device_state);
  return out.Take();
}

void SetBits(const WorkChunk& chunk, const std::vector<PageBitmap>& from, std::vector<PageBitmap>& to) {
  for (std::uint64_t page = chunk.first_page; page < chunk.end_page; ++page) {
    if (from[chunk.block].Test(page)) to[chunk.block].Set(page);
  }
}

void SettleAll(LegacyStream& stream) {
  for (std::uint64_t chunk = 0; chunk < stream.plan().chunk_count(); ++chunk) stream.Settle(chunk);
}

// A guest's stream whole, made by a plain loop, to compare stretches with.
class Streams {
 public:
  explicit Streams(const std::vector<SmallGuest::Shape>& shapes)
      : guest_(shapes),
        present_(PresentPages(guest_)),
        before_(1234, std::byte{0xab}),
        whole(WholeStreamPlainly(before_, guest_, present_)),
        stream(before_, guest_.image(), present_) {
    SettleAll(stream);
  }

  void ExpectSame(std::uint64_t from, std::uint64_t length) const {
    Bytes made(length, std::byte{0x5a});
    stream.Make(FileOffset{from}, made);
    const auto wanted = std::span(whole).subspan(from, length);
    ASSERT_TRUE(std::ranges::equal(made, wanted)) << length << " bytes from " << from;
  }

 private:
  SmallGuest guest_;
  std::vector<PageBitmap> present_;
  Bytes before_;

 public:
  const Bytes whole;
  LegacyStream stream;
};

TEST(LegacyStreamTest, IsTheWorkedExampleOfTheFormat) {
  Bytes memory = Join({Bytes(4096), golden::Page1()});
  const Bytes device_state = Hex(golden::kDeviceState);
  GuestImage guest{{"pc-i440fx-7.2", 2, false}, {{"pc.ram", memory, {}, nullptr, {}}}, device_state, "", true};
  std::vector<PageBitmap> present{PageBitmap(2)};
  present[0].Set(1);
  LegacyStream stream({}, guest, present);
  SettleAll(stream);
  Bytes made(stream.known().end.value());
  stream.Make(FileOffset{0}, made);
  EXPECT_EQ(ToHex(made), ToHex(golden::LegacyStream()));
}

class LegacyStreamShapeTest : public testing::TestWithParam<std::vector<SmallGuest::Shape>> {};

TEST_P(LegacyStreamShapeTest, IsAsLongAsItsRecords) {
  const Streams streams(GetParam());
  EXPECT_EQ(streams.stream.known().end, FileOffset{streams.whole.size()});
  EXPECT_TRUE(streams.stream.known().whole);
  EXPECT_GE(streams.stream.longest(), ByteCount{streams.whole.size()});
}

TEST_P(LegacyStreamShapeTest, MakesTheWholeAtOnce) {
  const Streams streams(GetParam());
  streams.ExpectSame(0, streams.whole.size());
}

TEST_P(LegacyStreamShapeTest, MakesAnyStretchByItself) {
  const Streams streams(GetParam());
  std::mt19937_64 random(11);
  for (int round = 0; round < 300; ++round) {
    const std::uint64_t from = random() % streams.whole.size();
    const std::uint64_t limit = round % 2 == 0 ? 20000 : 30;
    streams.ExpectSame(from, random() % std::min(limit, streams.whole.size() - from + 1));
  }
}

TEST_P(LegacyStreamShapeTest, MakesEveryByteByItselfAroundTheEdges) {
  const Streams streams(GetParam());
  const std::uint64_t size = streams.whole.size();
  for (std::uint64_t at = 1200; at < std::min<std::uint64_t>(size, 1600); ++at) streams.ExpectSame(at, 1);
  for (std::uint64_t at = size - 300; at < size; ++at) streams.ExpectSame(at, 1);
  streams.ExpectSame(size, 0);
}

TEST_P(LegacyStreamShapeTest, MakesPiecesThatAddUpToTheWhole) {
  const Streams streams(GetParam());
  for (const std::uint64_t piece : {std::uint64_t{4096}, std::uint64_t{4105}, std::uint64_t{1} << 20}) {
    for (std::uint64_t at = 0; at < streams.whole.size(); at += piece) {
      streams.ExpectSame(at, std::min(piece, streams.whole.size() - at));
    }
  }
}

std::vector<SmallGuest::Shape> OneBlock(std::uint64_t pages) {
  return {{"pc.ram", pages}};
}

TEST_P(LegacyStreamShapeTest, BecomesKnownFromItsBeginningOnWhateverTheOrder) {
  SmallGuest guest(GetParam());
  const std::vector<PageBitmap> all_present = PresentPages(guest);
  const Bytes whole = WholeStreamPlainly({}, guest, all_present);
  std::vector<PageBitmap> present = EmptyBitmaps(guest.image().blocks);
  LegacyStream stream({}, guest.image(), present);
  std::vector<std::uint64_t> order(stream.plan().chunk_count());
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  std::ranges::shuffle(order, std::mt19937_64(5));
  std::vector<bool> settled(order.size() + 1);
  for (const std::uint64_t chunk : order) {
    const bool is_next =
        std::find(settled.begin(), settled.end(), false) - settled.begin() == static_cast<std::ptrdiff_t>(chunk);
    const LegacyStream::Known before = stream.known();
    EXPECT_FALSE(before.whole);
    SetBits(stream.plan().chunk(chunk), all_present, present);
    stream.Settle(chunk);
    settled[chunk] = true;
    EXPECT_EQ(stream.known().end > before.end, is_next);
    Bytes made(stream.known().end.value());
    stream.Make(FileOffset{0}, made);
    ASSERT_TRUE(std::ranges::equal(made, std::span(whole).first(made.size())));
  }
  EXPECT_TRUE(stream.known().whole);
  EXPECT_EQ(stream.known().end, FileOffset{whole.size()});
}

INSTANTIATE_TEST_SUITE_P(Shapes, LegacyStreamShapeTest,
                         testing::Values(OneBlock(1), OneBlock(511), OneBlock(512), OneBlock(513), OneBlock(1030),
                                         std::vector<SmallGuest::Shape>{{"pc.ram", 513},
                                                                        {"b", 1},
                                                                        {std::string(255, 'n'), 512},
                                                                        {"/rom@etc/acpi/tables", 3},
                                                                        {"vga.vram", 40}}),
                         [](const auto& shown) {
                           return shown.param.size() > 1 ? std::string("SeveralBlocks")
                                                         : "Pages" + std::to_string(shown.param[0].pages);
                         });

TEST(LegacyStreamTest, WithoutBlocksIsKnownAtOnce) {
  const SmallGuest guest(std::vector<SmallGuest::Shape>{});
  const std::vector<PageBitmap> none;
  const LegacyStream stream({}, guest.image(), none);
  ASSERT_TRUE(stream.known().whole);
  Bytes made(stream.known().end.value());
  stream.Make(FileOffset{0}, made);
  EXPECT_EQ(made, WholeStreamPlainly({}, guest, none));
}

TEST(LegacyStreamTest, HasTheSwitchoverCommandWhereTheMachineSendsIt) {
  SmallGuest guest({{"pc.ram", 2}});
  const std::vector<PageBitmap> present = PresentPages(guest);
  LegacyStream without({}, guest.image(), present);
  SettleAll(without);
  guest.image().frame.switchover_start = true;
  LegacyStream with({}, guest.image(), present);
  SettleAll(with);
  EXPECT_EQ(with.known().end, without.known().end + ByteCount{5});
  Bytes made(with.known().end.value());
  with.Make(FileOffset{0}, made);
  EXPECT_EQ(made, WholeStreamPlainly({}, guest, present));
}

}  // namespace
}  // namespace vmsave
