#include "format/stream_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>

#include "tests/format/golden.h"
#include "tests/format/memory_source.h"

namespace vmsave {
namespace {

// Puts a stream together field by field, right or wrong.
class StreamBuilder {
 public:
  StreamBuilder& U8(std::uint8_t value) { return Add(value); }
  StreamBuilder& U16(std::uint16_t value) { return Add(value); }
  StreamBuilder& U32(std::uint32_t value) { return Add(value); }
  StreamBuilder& U64(std::uint64_t value) { return Add(value); }
  StreamBuilder& Text(std::string_view text) {
    out_.Append(text);
    return *this;
  }
  StreamBuilder& ShortString(std::string_view text) { return U8(static_cast<std::uint8_t>(text.size())).Text(text); }

  StreamBuilder& Magic() { return U32(0x5145564d).U32(3); }
  StreamBuilder& Configuration(std::string_view machine) {
    return U8(7).U32(static_cast<std::uint32_t>(machine.size())).Text(machine);
  }
  StreamBuilder& Capabilities(const std::vector<std::string_view>& names) {
    U8(5).ShortString("configuration/capabilities").U32(1).U32(static_cast<std::uint32_t>(names.size()));
    for (const std::string_view name : names) ShortString(name);
    return *this;
  }
  StreamBuilder& RamStart(std::uint64_t total) { return U8(1).U32(2).ShortString("ram").U32(0).U32(4).U64(total | 4); }
  StreamBuilder& Entry(std::string_view name, std::uint64_t length) { return ShortString(name).U64(length); }
  StreamBuilder& Part() { return U8(2).U32(2); }
  StreamBuilder& End() { return U8(3).U32(2); }
  StreamBuilder& Over() { return U64(0x10).U8(0x7e).U32(2); }
  StreamBuilder& Page(std::uint64_t word, std::uint8_t fill) {
    U64(word);
    return Fill(fill);
  }
  StreamBuilder& Fill(std::uint8_t fill) {
    out_.Append(Bytes(kPageBytes, static_cast<std::byte>(fill)));
    return *this;
  }
  StreamBuilder& MappedRam(std::uint64_t bitmap, std::uint64_t pages) {
    return U32(1).U64(4096).U64(bitmap).U64(pages);
  }
  StreamBuilder& ZerosUpTo(std::size_t offset) {
    out_.AppendZeros(offset - out_.size());
    return *this;
  }

  std::size_t size() const { return out_.size(); }
  Bytes Take() { return out_.Take(); }

 private:
  template <std::unsigned_integral Int>
  StreamBuilder& Add(Int value) {
    out_.AppendBigEndian(value);
    return *this;
  }
  ByteWriter out_;
};

// Up to the end of START: two blocks, "pc.ram" of three pages and "rom" of one.
StreamBuilder TwoBlocks() {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").RamStart(4 * kPageBytes).Entry("pc.ram", 3 * kPageBytes).Entry("rom", 4096).Over();
  return stream;
}

// The same, and a PART opened for records.
StreamBuilder Records() {
  StreamBuilder stream = TwoBlocks();
  stream.Part();
  return stream;
}

// Up to the block's name and length, with mapped-ram.
StreamBuilder MappedBlock(std::uint64_t length = 2 * kPageBytes) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").Capabilities({"mapped-ram"}).RamStart(length).Entry("pc.ram", length);
  return stream;
}

// A small mapped-ram stream in which the pages follow the bitmap at the next page boundary.
Bytes SmallMappedStream() {
  StreamBuilder stream = MappedBlock();
  stream.MappedRam(stream.size() + 28, 4096).Text(std::string_view("\x02\0\0\0\0\0\0\0", 8));
  stream.ZerosUpTo(2 * kPageBytes).Fill(7).Over().End().Over();
  return stream.Take();
}

StreamContents Read(const Bytes& stream, RecordingSink& sink) {
  MemorySource source(stream);
  return ReadStreamUpToDevices(source, sink);
}

void ExpectRefused(const Bytes& stream, std::string_view words) {
  RecordingSink sink;
  ExpectDamaged([&] { Read(stream, sink); }, words);
  EXPECT_LE(sink.lists, 1);
}
void ExpectRefused(StreamBuilder stream, std::string_view words) {
  ExpectRefused(stream.Take(), words);
}

std::byte FirstByte(RecordingSink& sink, std::size_t block, std::uint64_t page) {
  return sink.pages.at({block, page})[0];
}

TEST(StreamReaderTest, ReadsTheGoldenVersion2Stream) {
  const Bytes stream = golden::LegacyStream();
  MemorySource source(stream);
  RecordingSink sink;
  const StreamContents contents = ReadStreamUpToDevices(source, sink);
  EXPECT_EQ(contents.frame.machine, "pc-i440fx-7.2");
  EXPECT_EQ(contents.frame.ram_section_id, 2U);
  EXPECT_FALSE(contents.frame.switchover_start);
  EXPECT_TRUE(contents.capabilities.empty());
  ASSERT_EQ(contents.blocks.size(), 1U);
  EXPECT_EQ(contents.blocks[0].name, "pc.ram");
  EXPECT_EQ(contents.blocks[0].pages(), 2U);
  EXPECT_FALSE(contents.blocks[0].address);
  EXPECT_FALSE(contents.blocks[0].mapped_ram);
  EXPECT_EQ(sink.lists, 1);
  EXPECT_EQ(sink.frame.machine, "pc-i440fx-7.2");
  EXPECT_EQ(sink.frame.ram_section_id, 2U);
  EXPECT_EQ(sink.calls, "0:0z 0:1p");
  EXPECT_EQ(ToHex(sink.pages.at({0, 1})), ToHex(golden::Page1()));
  EXPECT_EQ(ToHex(ReadDeviceState(source)), golden::kDeviceState);
}

TEST(StreamReaderTest, ReadsTheGoldenVersion3Image) {
  const Bytes image = golden::Version3Image();
  EXPECT_EQ(image.size(), golden::kFileLength);
  MemoryFile source(image, golden::kStreamStart);
  RecordingSink sink;
  const StreamContents contents = ReadStreamUpToDevices(source, sink);
  EXPECT_TRUE(contents.has_mapped_ram());
  ASSERT_EQ(contents.blocks.size(), 1U);
  ASSERT_TRUE(contents.blocks[0].mapped_ram);
  EXPECT_EQ(contents.blocks[0].mapped_ram->bitmap_offset, FileOffset{golden::kBitmapOffset});
  EXPECT_EQ(contents.blocks[0].mapped_ram->pages_offset, FileOffset{golden::kPagesOffset});
  EXPECT_EQ(ToHex(contents.blocks[0].present.Encode()), golden::kBitmap);
  EXPECT_EQ(sink.lists, 1);
  EXPECT_EQ(sink.calls, "");
  EXPECT_EQ(source.position(), FileOffset{golden::kDeviceStateOffset});
}

TEST(StreamReaderTest, TheHeadOfASequentialStreamEndsBeforeItsPages) {
  const Bytes stream = golden::LegacyStream();
  MemorySource source(stream);
  const StreamContents contents = ReadStreamHead(source);
  EXPECT_EQ(contents.frame.machine, "pc-i440fx-7.2");
  ASSERT_EQ(contents.blocks.size(), 1U);
  EXPECT_EQ(contents.blocks[0].name, "pc.ram");
  const std::size_t record = 8 + 7;  // that of page 1 has no name; page 0's has, and a fill byte
  EXPECT_EQ(source.position().value(), Hex(golden::kLegacyHead).size() - 8 - (record + 1) - 5);
}

TEST(StreamReaderTest, TheHeadOfAMappedRamStreamEndsAtTheDeviceState) {
  const Bytes image = golden::Version3Image();
  MemoryFile source(image, golden::kStreamStart);
  const StreamContents contents = ReadStreamHead(source);
  EXPECT_EQ(ToHex(contents.blocks.at(0).present.Encode()), golden::kBitmap);
  EXPECT_EQ(source.position(), FileOffset{golden::kDeviceStateOffset});
}

TEST(StreamReaderTest, ReadsFromASocketThatGivesOneByteAtATime) {
  const Bytes stream = golden::LegacyStream();
  MemorySource source(stream, 0, 1);
  RecordingSink sink;
  ReadStreamUpToDevices(source, sink);
  EXPECT_EQ(ToHex(sink.pages.at({0, 1})), ToHex(golden::Page1()));
  EXPECT_EQ(ToHex(ReadDeviceState(source)), golden::kDeviceState);
}

TEST(StreamReaderTest, PassesOverPagesThatTheSinkDoesNotWant) {
  const Bytes stream = golden::LegacyStream();
  MemorySource source(stream);
  RecordingSink sink;
  sink.pass_over = true;
  ReadStreamUpToDevices(source, sink);
  EXPECT_EQ(sink.calls, "0:0z 0:1p");
  EXPECT_EQ(ToHex(ReadDeviceState(source)), golden::kDeviceState);
}

TEST(StreamReaderTest, TheDevicesOfABackgroundSnapshotFollowItsLastPart) {
  StreamBuilder stream = Records();
  stream.U64(0x1000 | 0x08).ShortString("pc.ram").Fill(1).Over();
  stream.Part().U64(0x2000 | 0x22).U8(0).Over();
  const std::size_t devices = stream.size();
  stream.Text(AsText(Hex(golden::kDeviceState)));
  const Bytes bytes = stream.Take();
  for (const std::size_t piece : {std::size_t{1}, bytes.size()}) {
    MemorySource source(bytes, 0, piece);
    RecordingSink sink;
    const StreamContents contents = ReadStreamUpToDevices(source, sink);
    EXPECT_EQ(sink.calls, "0:1p 0:2z");
    EXPECT_EQ(contents.blocks.size(), 2U);
    EXPECT_EQ(source.position().value(), devices);
    EXPECT_EQ(ToHex(ReadDeviceState(source)), golden::kDeviceState);
  }
}

TEST(StreamReaderTest, RefusesABackgroundSnapshotFromASourceThatCannotStepBack) {
  class ForwardSource final : public ByteSource {
   public:
    explicit ForwardSource(std::span<const std::byte> bytes) : bytes_(bytes) {}
    std::size_t ReadSome(std::span<std::byte> out) override { return bytes_.ReadSome(out); }
    FileOffset position() const override { return bytes_.position(); }
    std::string_view name() const override { return bytes_.name(); }

   private:
    MemorySource bytes_;
  };
  const Bytes bytes = Records().Over().U8(4).U32(7).ShortString("timer").Take();
  ForwardSource source(bytes);
  RecordingSink sink;
  ExpectDamaged([&] { ReadStreamUpToDevices(source, sink); }, "background snapshot");
}

// Its pages lie elsewhere, and QEMU makes no snapshot of this kind.
TEST(StreamReaderTest, RefusesAMappedRamStreamWithoutAnEnd) {
  Bytes stream = SmallMappedStream();
  stream.resize(stream.size() - 18);  // END
  ExpectRefused(Join({stream, StreamBuilder().Part().Over().U8(4).U32(7).ShortString("timer").Take()}),
                "\"timer\" comes before the end of ram");
}

TEST(StreamReaderTest, ContinueRefersToTheLastNamedBlockAcrossSections) {
  StreamBuilder stream = Records();
  stream.U64(0x1000 | 0x08).ShortString("pc.ram").Fill(1).Over();
  stream.Part().Page(0x2000 | 0x28, 2).Over();
  stream.Part().U64(0x02).ShortString("rom").U8(0).Over();
  stream.End().Page(0x28, 3).Over();
  RecordingSink sink;
  Read(stream.Take(), sink);
  EXPECT_EQ(sink.calls, "0:1p 0:2p 1:0z 1:0p");
  EXPECT_EQ(FirstByte(sink, 1, 0), std::byte{3});
}

TEST(StreamReaderTest, PassesOnAPageThatIsSentTwiceInOrder) {
  StreamBuilder stream = Records();
  stream.U64(0x08).ShortString("pc.ram").Fill(1).Page(0x28, 2).U64(0x22).U8(0).Page(0x28, 4).Over().End().Over();
  RecordingSink sink;
  Read(stream.Take(), sink);
  EXPECT_EQ(sink.calls, "0:0p 0:0p 0:0z 0:0p");
  EXPECT_EQ(FirstByte(sink, 0, 0), std::byte{4});
}

TEST(StreamReaderTest, ReadsTheHeadAlone) {
  StreamBuilder stream = TwoBlocks();
  const std::uint64_t end = stream.size();
  const Bytes bytes = stream.Part().U64(0xfff).Take();
  MemorySource source(bytes);
  const StreamContents contents = ReadStreamHead(source);
  EXPECT_EQ(contents.frame.machine, "pc");
  ASSERT_EQ(contents.blocks.size(), 2U);
  EXPECT_EQ(contents.ram_length(), contents.blocks[0].length + contents.blocks[1].length);
  EXPECT_EQ(source.position(), FileOffset{end});
  for (std::size_t length = 0; length < end; ++length) {
    MemorySource cut(std::span<const std::byte>(bytes.data(), length));
    ExpectDamaged([&] { ReadStreamHead(cut); }, "ends early");
  }
}

TEST(StreamReaderTest, TakesAStreamWithoutPages) {
  StreamBuilder stream = TwoBlocks();
  stream.End().Over();
  RecordingSink sink;
  EXPECT_EQ(Read(stream.Take(), sink).blocks.size(), 2U);
  EXPECT_EQ(sink.calls, "");
}

TEST(StreamReaderTest, TakesAStreamWithoutConfiguration) {
  StreamBuilder stream;
  stream.Magic().RamStart(4096).Entry("pc.ram", 4096).Over().End().Over();
  RecordingSink sink;
  EXPECT_EQ(Read(stream.Take(), sink).frame.machine, "");
}

TEST(StreamReaderTest, SkipsCommandsAndNotesSwitchoverStart) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").U8(8).U16(5).U16(3).Text("abc");
  stream.RamStart(4096).Entry("pc.ram", 4096).Over();
  RecordingSink sink;
  StreamBuilder other = stream;
  other.End().Over();
  EXPECT_FALSE(Read(other.Take(), sink).frame.switchover_start);
  stream.U8(8).U16(11).U16(0).End().Over();
  RecordingSink second;
  EXPECT_TRUE(Read(stream.Take(), second).frame.switchover_start);
}

TEST(StreamReaderTest, PassesOverMultifdFlush) {
  StreamBuilder stream = Records();
  stream.U64(0x200).U64(0x02).ShortString("rom").U8(0).U64(0x200).Over().End().U64(0x200).Over();
  RecordingSink sink;
  Read(stream.Take(), sink);
  EXPECT_EQ(sink.calls, "1:0z");
}

// Whoever waits for the channels there would wait for ever: they wait for the block list.
TEST(StreamReaderTest, RefusesMultifdFlushBeforeTheBlockList) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").U8(1).U32(2).ShortString("ram").U32(0).U32(4).U64(0x200);
  ExpectRefused(std::move(stream), "a MULTIFD_FLUSH comes before the block list");
}

TEST(StreamReaderTest, ReadsAddressesWithIgnoreShared) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").Capabilities({"x-ignore-shared"}).RamStart(2 * kPageBytes);
  stream.Entry("pc.ram", 4096).U64(0).Entry("high", 4096).U64(0x100000000).Over().End().Over();
  RecordingSink sink;
  const StreamContents contents = Read(stream.Take(), sink);
  EXPECT_EQ(contents.blocks[0].address, GuestAddress{0});
  EXPECT_EQ(contents.blocks[1].address, GuestAddress{0x100000000});
  EXPECT_TRUE(contents.HasCapability(kIgnoreSharedCapability));
  EXPECT_FALSE(contents.has_mapped_ram());
}

// Of QEMU 4.0. The stream does not tell, so that another version's must not be read so, nor this one as another's.
TEST(StreamReaderTest, PassesOverWhatQemu40TellsOfIgnoredBlocks) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").Capabilities({"x-ignore-shared"}).RamStart(2 * kPageBytes);
  stream.Entry("pc.ram", 4096).U64(0x1000).U8(1).Entry("rom", 4096).U64(0x2000).U8(0).Over();
  stream.Part().U64(0x08).ShortString("rom").Fill(1).Over().End().Over();
  const Bytes bytes = stream.Take();
  MemorySource source(bytes);
  RecordingSink sink;
  const StreamContents contents = ReadStreamUpToDevices(source, sink, {.tells_ignored_blocks = true});
  EXPECT_EQ(contents.blocks[0].address, GuestAddress{0x1000});
  EXPECT_EQ(contents.blocks[1].name, "rom");
  EXPECT_EQ(contents.blocks[1].address, GuestAddress{0x2000});
  EXPECT_EQ(sink.calls, "1:0p");
  ExpectRefused(bytes, "cannot read vm1.sav");
}

TEST(StreamReaderTest, RefusesAnotherVersionsBlockListAsQemu40s) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").Capabilities({"x-ignore-shared"}).RamStart(2 * kPageBytes);
  stream.Entry("pc.ram", 4096).U64(0).Entry("rom", 4096).U64(0).Over().End().Over();
  const Bytes bytes = stream.Take();
  MemorySource source(bytes);
  RecordingSink sink;
  ExpectDamaged([&] { ReadStreamUpToDevices(source, sink, {.tells_ignored_blocks = true}); }, "neither ignored");
}

TEST(StreamReaderTest, AddressComesBeforeTheMappedRamHeader) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").Capabilities({"x-ignore-shared", "mapped-ram"}).RamStart(4096);
  stream.Entry("pc.ram", 4096).U64(0xa000);
  stream.MappedRam(stream.size() + 28, 4096).U64(0).ZerosUpTo(2 * kPageBytes).Over().End().Over();
  RecordingSink sink;
  const StreamContents contents = Read(stream.Take(), sink);
  EXPECT_EQ(contents.blocks[0].address, GuestAddress{0xa000});
  EXPECT_EQ(contents.blocks[0].mapped_ram->pages_offset, FileOffset{4096});
}

TEST(StreamReaderTest, RefusesTruncationAtEveryByteOfAVersion2Stream) {
  const Bytes whole = golden::LegacyStream();
  const std::size_t devices = whole.size() - Hex(golden::kDeviceState).size();
  for (std::size_t length = 0; length < devices; ++length) {
    const std::span<const std::byte> cut(whole.data(), length);
    for (const bool pass_over : {false, true}) {
      MemorySource source(cut);
      RecordingSink sink;
      sink.pass_over = pass_over;
      ExpectDamaged([&] { ReadStreamUpToDevices(source, sink); }, "cannot read vm1.sav: it ends early");
    }
  }
  const std::span<const std::byte> without_devices(whole.data(), devices);
  MemorySource source(without_devices);
  RecordingSink sink;
  EXPECT_EQ(ReadStreamUpToDevices(source, sink).blocks.size(), 1U);
  EXPECT_TRUE(ReadDeviceState(source).empty());
}

TEST(StreamReaderTest, RefusesTruncationAtEveryByteOfAMappedRamStream) {
  const Bytes whole = SmallMappedStream();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const std::span<const std::byte> cut(whole.data(), length);
    MemorySource socket(cut);
    MemoryFile file(cut, 0);
    for (ByteSource* source : std::array<ByteSource*, 2>{&socket, &file}) {
      RecordingSink sink;
      ExpectDamaged([&] { ReadStreamUpToDevices(*source, sink); }, "cannot read vm1.sav: it ends early");
    }
  }
  RecordingSink sink;
  EXPECT_TRUE(Read(whole, sink).blocks[0].present.Test(1));
}

TEST(StreamReaderTest, AFlippedBitIsReadOrRefusedButNeverCrashes) {
  for (const Bytes& whole : {golden::LegacyStream(), SmallMappedStream()}) {
    Bytes stream = whole;
    for (std::size_t bit = 0; bit < stream.size() * 8; ++bit) {
      if (bit == std::size_t{130} * 8) bit = (stream.size() - 120) * 8;  // pages and holes are but data
      stream[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
      RecordingSink sink;
      try {
        Read(stream, sink);
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kDamaged);
      }
      stream[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    }
  }
}

TEST(StreamReaderTest, RefusesWhatIsNoStream) {
  ExpectRefused(StreamBuilder().U32(0x5145564e).U32(3), "no QEMU stream");
  ExpectRefused(StreamBuilder().U32(0x5145564d).U32(2), "no QEMU stream");
  ExpectRefused(StreamBuilder().U32(0x4d564551).U32(3), "no QEMU stream");
}

TEST(StreamReaderTest, NamesSourceAndPositionInMessages) {
  StreamBuilder stream = TwoBlocks();
  const std::string where = "cannot read vm1.sav at byte " + std::to_string(stream.size() + 1);
  stream.U8(0x55);
  ExpectRefused(stream, where);
}

TEST(StreamReaderTest, RefusesUnknownSectionTypes) {
  for (const int type : {0x00, 0x05, 0x06, 0x09, 0x55, 0x7e, 0xff}) {
    StreamBuilder stream = TwoBlocks();
    stream.U8(static_cast<std::uint8_t>(type));
    ExpectRefused(stream, "section type");
  }
}

// virtio-mem's section comes early, with all pages behind it.
TEST(StreamReaderTest, RefusesADeviceInFrontOfAllPagesAndNamesIt) {
  StreamBuilder stream = TwoBlocks();
  stream.U8(4).U32(7).ShortString("timer").U32(0).U32(2);
  ExpectRefused(stream, "\"timer\" comes before the end of ram");
}

TEST(StreamReaderTest, RefusesOtherIterableSectionAndNamesIt) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").U8(1).U32(1).ShortString("dirty-bitmap").U32(0).U32(1);
  ExpectRefused(stream, "\"dirty-bitmap\"");
}

TEST(StreamReaderTest, RefusesSectionsThatWereNotStarted) {
  ExpectRefused(StreamBuilder().Magic().Configuration("pc").Part(), "other than ram");
  ExpectRefused(StreamBuilder().Magic().Configuration("pc").End(), "other than ram");
  StreamBuilder stream = TwoBlocks();
  stream.U8(2).U32(3);
  ExpectRefused(stream, "other than ram");
}

TEST(StreamReaderTest, RefusesASecondRamSection) {
  StreamBuilder stream = TwoBlocks();
  stream.RamStart(4096);
  ExpectRefused(stream, "second ram section");
}

TEST(StreamReaderTest, RefusesUnknownRamInstanceAndVersion) {
  ExpectRefused(StreamBuilder().Magic().U8(1).U32(2).ShortString("ram").U32(1).U32(4), "is not known");
  ExpectRefused(StreamBuilder().Magic().U8(1).U32(2).ShortString("ram").U32(0).U32(3), "is not known");
  ExpectRefused(StreamBuilder().Magic().U8(1).U32(2).ShortString("ram").U32(0).U32(5), "is not known");
}

TEST(StreamReaderTest, RefusesWrongFooters) {
  ExpectRefused(Records().U64(0x10).U8(0x7d).U32(2), "footer");
  ExpectRefused(Records().U64(0x10).U8(0x7e).U32(3), "footer");
}

TEST(StreamReaderTest, RefusesRamWithoutABlockList) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").U8(1).U32(2).ShortString("ram").U32(0).U32(4).Over();
  ExpectRefused(stream, "no block list");
}

TEST(StreamReaderTest, RefusesSecondBlockList) {
  StreamBuilder stream = Records();
  stream.U64(4096 | 4).Entry("more", 4096);
  ExpectRefused(stream, "second block list");
}

// The sink was told of the blocks once for each of them.
TEST(StreamReaderTest, RefusesEmptyBlockList) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").RamStart(0).U64(4096 | 4).Entry("pc.ram", 4096).Over().End().Over();
  RecordingSink sink;
  const Bytes bytes = stream.Take();
  MemorySource source(bytes);
  ExpectDamaged([&] { ReadStreamUpToDevices(source, sink); }, "no RAM");
  EXPECT_EQ(sink.lists, 0);
}

TEST(StreamReaderTest, RefusesDuplicateBlocks) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").RamStart(2 * kPageBytes).Entry("rom", 4096).Entry("rom", 4096);
  ExpectRefused(stream, "\"rom\" is listed twice");
}

TEST(StreamReaderTest, RefusesBlocksWithWrongLengths) {
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{4095}, 3 * kPageBytes,
                                     std::uint64_t{0xfffffffffffff000}, std::numeric_limits<std::uint64_t>::max()}) {
    StreamBuilder stream;
    stream.Magic().Configuration("pc").RamStart(2 * kPageBytes).Entry("pc.ram", length);
    ExpectRefused(stream, "wrong length");
  }
}

TEST(StreamReaderTest, RefusesBlocksWithoutAName) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").RamStart(4096).Entry("", 4096);
  ExpectRefused(stream, "name");
}

TEST(StreamReaderTest, RefusesMoreRamThanAGuestCanHave) {
  const std::uint64_t limit = std::uint64_t{1} << 46;
  ExpectRefused(StreamBuilder().Magic().RamStart(limit + 4096), "bytes of RAM are more than");
  StreamBuilder stream;
  stream.Magic().RamStart(limit).Entry("pc.ram", limit).Over().End().Over();
  RecordingSink sink;
  EXPECT_EQ(Read(stream.Take(), sink).blocks[0].length, ByteCount{limit});
}

TEST(StreamReaderTest, RefusesMoreRamThanItsOriginCanHave) {
  StreamBuilder stream;
  stream.Magic().RamStart(8192).Entry("pc.ram", 8192).Over().End().Over();
  const Bytes bytes = stream.Take();
  const auto read = [&bytes](ByteCount most) {
    MemorySource source(bytes);
    RecordingSink sink;
    return ReadStreamUpToDevices(source, sink, {.most_ram = most}).ram_length();
  };
  EXPECT_EQ(read(ByteCount{8192}), ByteCount{8192});
  ExpectDamaged([&] { read(ByteCount{8191}); }, "8192 bytes of RAM are more than");
}

TEST(StreamReaderTest, RefusesTooManyBlocks) {
  constexpr std::uint64_t kLimit = 4096;
  const auto stream = [](std::uint64_t blocks) {
    StreamBuilder builder;
    builder.Magic().RamStart(blocks * kPageBytes);
    for (std::uint64_t i = 0; i < blocks; ++i) builder.Entry(std::to_string(i), 4096);
    return builder.Over().End().Over().Take();
  };
  RecordingSink sink;
  EXPECT_EQ(Read(stream(kLimit), sink).blocks.size(), kLimit);
  ExpectRefused(stream(kLimit + 1), "too many RAM blocks");
}

TEST(StreamReaderTest, TakesTheLongestNamesAndRefusesLongerOnes) {
  const std::string name(255, 'x');
  StreamBuilder stream;
  stream.Magic().Configuration(name).RamStart(4096).Entry(name, 4096).Over().End().Over();
  RecordingSink sink;
  const StreamContents contents = Read(stream.Take(), sink);
  EXPECT_EQ(contents.frame.machine, name);
  EXPECT_EQ(contents.blocks[0].name, name);
  ExpectRefused(StreamBuilder().Magic().Configuration(name + "x"), "machine type");
  ExpectRefused(StreamBuilder().Magic().U8(7).U32(0xffffffff), "machine type");
  ExpectRefused(StreamBuilder().Magic().Configuration(""), "machine type");
}

TEST(StreamReaderTest, RefusesUnknownConfigurationSubsection) {
  StreamBuilder stream;
  stream.Magic().Configuration("virt").U8(5).ShortString("configuration/target-page-bits").U32(1).U32(12);
  ExpectRefused(stream, "\"configuration/target-page-bits\" is not known");
}

// What a capability changes in the stream cannot be known.
TEST(StreamReaderTest, RefusesUnknownCapabilityAndNamesIt) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").Capabilities({"x-ignore-shared", "x-compress-all"});
  ExpectRefused(stream, "\"x-compress-all\"");
}

TEST(StreamReaderTest, RefusesTooManyCapabilities) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").U8(5).ShortString("configuration/capabilities").U32(1).U32(65);
  ExpectRefused(stream, "too many capabilities");
}

// The capability came when the blocks had been read without their mapped-ram headers: whoever believed
// has_mapped_ram() then used offsets that were not there.
TEST(StreamReaderTest, RefusesConfigurationBehindTheStartOfTheStream) {
  StreamBuilder stream = TwoBlocks();
  stream.Configuration("pc").Capabilities({"mapped-ram"}).End().Over();
  ExpectRefused(stream, "configuration");
  StreamBuilder twice;
  twice.Magic().Configuration("pc").Configuration("q35").RamStart(4096).Entry("pc.ram", 4096).Over().End().Over();
  ExpectRefused(twice, "configuration");
}

TEST(StreamReaderTest, RefusesRecordsWithUnknownFlags) {
  for (const int flags : {0x00, 0x01, 0x0a, 0x0c, 0x18, 0x20, 0x24, 0x30, 0x40, 0x48, 0x80, 0x100, 0x108, 0x220, 0x208,
                          0x400, 0x800, 0xfff}) {
    ExpectRefused(Records().U64(0x1000U | static_cast<std::uint64_t>(flags)).ShortString("pc.ram").Fill(0),
                  "is not known");
  }
}

TEST(StreamReaderTest, RefusesContinueWithoutABlock) {
  ExpectRefused(Records().Page(0x28, 1), "no RAM block");
  ExpectRefused(Records().U64(0x22).U8(0), "no RAM block");
}

TEST(StreamReaderTest, RefusesPagesOfUnknownBlocks) {
  ExpectRefused(Records().U64(0x08).ShortString("vga.vram").Fill(1), "\"vga.vram\", which is not in the list");
  ExpectRefused(Records().U64(0x02).ShortString("").U8(0), "not in the list");
  ExpectRefused(Records().U64(0x02).ShortString("pc.ra").U8(0), "not in the list");
}

TEST(StreamReaderTest, RefusesPagesBeforeTheBlockList) {
  StreamBuilder stream;
  stream.Magic().Configuration("pc").U8(1).U32(2).ShortString("ram").U32(0).U32(4);
  stream.U64(0x08).ShortString("pc.ram").Fill(1);
  ExpectRefused(stream, "not in the list");
}

TEST(StreamReaderTest, RefusesPagesBehindTheirBlock) {
  ExpectRefused(Records().U64(0x3000 | 8).ShortString("pc.ram").Fill(1), "behind the end of RAM block \"pc.ram\"");
  ExpectRefused(Records().U64(0x1000 | 2).ShortString("rom").U8(0), "behind the end of RAM block \"rom\"");
  ExpectRefused(Records().U64(0xfffffffffffff000 | 8).ShortString("rom").Fill(1), "behind the end");
}

TEST(StreamReaderTest, RefusesZeroPagesFilledWithSomethingElse) {
  ExpectRefused(Records().U64(0x02).ShortString("rom").U8(1), "other than zero");
}

// The pages lie in the file: a record would be one page in two places.
TEST(StreamReaderTest, RefusesPageRecordsInAMappedRamStream) {
  for (const std::uint64_t flag : {ram_flag::kPage, ram_flag::kZero}) {
    Bytes stream = SmallMappedStream();
    stream.resize(stream.size() - 18);  // END
    ExpectRefused(Join({stream, StreamBuilder().Part().U64(flag).ShortString("pc.ram").Fill(0).Take()}), "mapped-ram");
  }
}

TEST(StreamReaderTest, RefusesBitsBehindTheLastPage) {
  Bytes stream = SmallMappedStream();
  const std::size_t bitmap = MappedBlock().size() + 28;
  for (std::size_t bit = 2; bit < 64; ++bit) {
    stream[bitmap + bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    ExpectRefused(stream, "cannot read vm1.sav at byte");
    stream[bitmap + bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

TEST(StreamReaderTest, RefusesUnknownMappedRamHeader) {
  const std::size_t header = MappedBlock().size();
  for (const std::size_t at : {header + 3, header + 10}) {
    Bytes stream = SmallMappedStream();
    stream[at] ^= std::byte{2};
    ExpectRefused(stream, "cannot read vm1.sav at byte");
  }
}

// All up to its end is read for a checksum.
TEST(StreamReaderTest, RefusesABitmapFarBehindItsHeader) {
  const std::uint64_t here = MappedBlock().size() + 28;
  constexpr std::uint64_t kGap = 1 << 20;
  ExpectRefused(MappedBlock().MappedRam(here + kGap + 1, 4 * kGap), "far behind");
  StreamBuilder stream = MappedBlock();
  stream.MappedRam(here + kGap, 4 * kGap).ZerosUpTo(here + kGap).U64(0);
  stream.ZerosUpTo(4 * kGap + 2 * kPageBytes).Over().End().Over();
  RecordingSink sink;
  EXPECT_EQ(Read(stream.Take(), sink).blocks.size(), 1U);
}

TEST(StreamReaderTest, RefusesMappedRamThatOverlaps) {
  const std::uint64_t here = MappedBlock().size() + 28;
  ExpectRefused(MappedBlock().MappedRam(here - 1, 4096), "overlap");
  ExpectRefused(MappedBlock().MappedRam(0, 4096), "overlap");
  ExpectRefused(MappedBlock().MappedRam(4096, 4096), "overlap");
  ExpectRefused(MappedBlock().MappedRam(here, 0), "overlap");
}

TEST(StreamReaderTest, RefusesPagesThatAreNotAligned) {
  const std::uint64_t here = MappedBlock().size() + 28;
  ExpectRefused(MappedBlock().MappedRam(here, 4097), "aligned");
  ExpectRefused(MappedBlock().MappedRam(here, 4096 + 512), "aligned");
}

TEST(StreamReaderTest, RefusesOffsetsThatNoFileHas) {
  const std::uint64_t here = MappedBlock().size() + 28;
  for (const std::uint64_t offset :
       {std::uint64_t{0xfffffffffffff000}, std::uint64_t{0x8000000000000000}, std::uint64_t{0x7ffffffffffff000}}) {
    ExpectRefused(MappedBlock().MappedRam(here, offset).U64(0), "RAM block \"pc.ram\"");
    ExpectRefused(MappedBlock().MappedRam(offset, offset), "RAM block \"pc.ram\"");
  }
}

TEST(StreamReaderTest, AHugeBitmapIsNotTakenBeforeItIsThere) {
  const std::uint64_t length = std::uint64_t{1} << 46;
  StreamBuilder stream = MappedBlock(length);
  stream.MappedRam(stream.size() + 28, std::uint64_t{1} << 40).U64(0);
  ExpectRefused(stream, "ends early");
}

TEST(StreamReaderTest, ReadsDeviceStateUpToItsLimit) {
  // Gives `left` zeros.
  class ZeroSource final : public ByteSource {
   public:
    explicit ZeroSource(std::uint64_t left) : left_(left) {}
    std::size_t ReadSome(std::span<std::byte> out) override {
      const std::size_t count = std::min<std::uint64_t>(out.size(), left_);
      left_ -= count;
      return count;
    }
    FileOffset position() const override { return FileOffset{0}; }
    std::string_view name() const override { return "vm1.sav"; }

   private:
    std::uint64_t left_;
  };
  ZeroSource small(100000);
  EXPECT_EQ(ReadDeviceState(small).size(), 100000U);
  ZeroSource large(kMaxDeviceStateBytes + 1);
  ExpectDamaged([&] { ReadDeviceState(large); }, "larger than 512 MiB");
}

TEST(StreamReaderTest, RefusesMuchDeviceStateWithoutReadingIt) {
  class LongSource final : public ByteSource {
   public:
    std::size_t ReadSome(std::span<std::byte> out) override {
      ADD_FAILURE() << "was read";
      return out.size();
    }
    FileOffset position() const override { return FileOffset{0}; }
    std::optional<ByteCount> Left() const override { return ByteCount{std::uint64_t{1} << 60}; }
    std::string_view name() const override { return "vm1.sav"; }
  };
  LongSource source;
  ExpectDamaged([&] { ReadDeviceState(source); }, "larger than 512 MiB");
}

}  // namespace
}  // namespace vmsave
