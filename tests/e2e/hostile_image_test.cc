// Images of little data that would have vmimage take gigabytes or go on for ever: it ends, in little memory, with a
// message.
#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ostream>

#include "format/mapped_ram.h"
#include "format/save_header.h"
#include "tests/e2e/end_to_end_test.h"
#include "tests/format/golden.h"
#include "writer/compressor.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kMemoryLimit = 640 * kMiB;  // some 100 MiB of it are programs, libraries and stacks
constexpr std::uint64_t kTightMemoryLimit = 300 * kMiB;
constexpr ByteCount kMuchRam{std::uint64_t{1} << 45};
constexpr std::uint64_t kLongHole = std::uint64_t{1} << 43;  // file systems have files no longer than some TiB
constexpr std::size_t kLargestImage = 4 << 20;

const StreamFrame kFrame{"pc-i440fx-10.0", 2, false};

std::string AsString(std::span<const std::byte> bytes) {
  return AsText(bytes);
}

Bytes StreamWith(std::span<const BlockShape> blocks, std::span<const std::byte> device_state) {
  ByteWriter stream;
  AppendLegacyHead(stream, kFrame, blocks);
  AppendLegacyTail(stream, kFrame, device_state);
  return stream.Take();
}

Bytes StreamOfMuchRam() {
  return StreamWith(std::array{BlockShape{"pc.ram", kMuchRam}}, Hex(golden::kDeviceState));
}

Bytes StreamOfManyBlocks() {
  std::vector<BlockShape> blocks;
  for (int i = 0; i < 300'000; ++i) blocks.push_back({fmt::format("{}", i), kPageSize});
  return StreamWith(blocks, Hex(golden::kDeviceState));
}

// Commands may stand in front of the RAM, as many as there are.
Bytes StreamOfManyCommands() {
  ByteWriter stream;
  stream.AppendBigEndian(kStreamMagic);
  stream.AppendBigEndian(kStreamVersion);
  for (int i = 0; i < 1000; ++i) {
    stream.AppendBigEndian(static_cast<std::uint8_t>(SectionType::kCommand));
    stream.AppendBigEndian(std::uint16_t{1});
    stream.AppendBigEndian(std::uint16_t{0xffff});
    stream.AppendZeros(0xffff);
  }
  return stream.Take();
}

Bytes StreamOfMuchDeviceState() {
  return StreamWith(std::array{BlockShape{"pc.ram", kPageSize}}, Bytes(100 * kMiB));
}

Bytes MappedStreamOfMuchRam(FileOffset start) {
  return LayOutFixedOffsets(start, kFrame, {{"pc.ram", kMuchRam}}).stream_parts.front().bytes;
}

Bytes MappedStreamWithBitmapAt(FileOffset start, FileOffset bitmap) {
  Bytes stream = LayOutFixedOffsets(start, kFrame, {{"pc.ram", kPageSize}}).stream_parts.front().bytes;
  ByteWriter offsets;
  offsets.AppendBigEndian(bitmap.value());
  offsets.AppendBigEndian(bitmap.value() + kPageBytes);
  Place(stream, stream.size() - 16, offsets.Take());
  return stream;
}

Bytes Version2(std::span<const std::byte> stream, BodyFormat format) {
  Bytes image = Join({Hex(golden::kHeaderV2), golden::Data(), stream});
  PutLittleEndian(std::span(image).subspan(28), static_cast<std::uint32_t>(format));
  return image;
}

Bytes Compressed(const Bytes& stream, BodyFormat format) {
  ByteWriter compressed;
  const auto compressor =
      MakeCompressor(format, 1, [&](std::span<const std::byte> piece) { compressed.Append(piece); });
  compressor->Write(stream);
  compressor->Finish();
  return Version2(compressed.Take(), format);
}

Bytes Version3(const HeaderExtension& extension, std::span<const std::byte> stream) {
  SaveHeader header;
  header.state = ImageState::kComplete;
  header.version = 3;
  header.format = BodyFormat::kSparse;
  header.data_length = golden::kDataLength;
  header.extension = extension;
  Bytes image = Join({Bytes(kSaveHeaderBytes), golden::Data(), stream, Bytes(8192)});
  PutSaveHeader(std::span(image).first(golden::kStreamStart), header);
  return image;
}

// Sound, but for what follows it.
Bytes SmallSparse(FileOffset start) {
  const FixedOffsetLayout layout = LayOutFixedOffsets(start, kFrame, {{"pc.ram", kPageSize}});
  Bytes image = Version2(layout.stream_parts.front().bytes, BodyFormat::kSparse);
  for (const PlacedBytes& part : layout.stream_parts) Place(image, part.offset.value(), part.bytes);
  Place(image, layout.device_state_offset.value(), Hex(golden::kDeviceState));
  return image;
}

struct HostileImage {
  std::string name;
  std::string why;  // what is said about it
  std::function<Bytes()> make;
  bool may_be_taken = false;  // only a look at all of it tells that something is wrong
  std::uint64_t length = 0;   // of the file; what it is more than its bytes is a hole
  std::uint64_t memory = kMemoryLimit;
  bool has_last_byte = false;  // behind the hole
};

std::ostream& operator<<(std::ostream& out, const HostileImage& image) {
  return out << image.name;
}

std::vector<HostileImage> HostileImages() {
  const FileOffset start{golden::kStreamStart};
  const FileOffset end{golden::kStreamStart + 4096};
  return {
      {"BareStreamOfMuchRam", "bytes of RAM are more than", StreamOfMuchRam},
      {"StreamOfMuchRam", "bytes of RAM are more than", [] { return Version2(StreamOfMuchRam(), BodyFormat::kRaw); }},
      {"CompressedStreamOfMuchRam", "bytes of RAM are more than",
       [] { return Compressed(StreamOfMuchRam(), BodyFormat::kGzip); }},
      {"BareMappedRamOfMuchRam", "bytes of RAM are more than",
       [] {
         return Join({MappedStreamOfMuchRam(FileOffset{0}), Bytes(4096)});
       }},
      {"SparseOfMuchRam", "bytes of RAM are more than",
       [=] { return Version2(MappedStreamOfMuchRam(start), BodyFormat::kSparse); }},
      {"Version3OfMuchRam", "bytes of RAM are more than",
       [=] {
         return Version3({0, 0, end, end, ByteCount{0}, 0}, MappedStreamOfMuchRam(start));
       }},
      {"LongIntegrityTable", "it is truncated",
       [=] {
         return Version3({0, 0, end, end, ByteCount{std::uint64_t{1} << 62}, 0}, MappedStreamOfMuchRam(start));
       }},
      {"LongDescription", "ends within its description",
       [] {
         Bytes image = Version2({}, BodyFormat::kRaw);
         PutLittleEndian(std::span(image).subspan(20), static_cast<std::uint32_t>(kMaxDescriptionBytes));
         return image;
       }},
      {"ManyBlocks", "too many RAM blocks", [] { return Compressed(StreamOfManyBlocks(), BodyFormat::kXz); }},
      {"ManyCommands", "ends early", [] { return Compressed(StreamOfManyCommands(), BodyFormat::kZstd); }},
      {"MuchDeviceState", "has no end", [] { return Compressed(StreamOfMuchDeviceState(), BodyFormat::kZstd); }, true},
      {"BareStreamOfMuchRamInALongFile", "bytes of RAM are more than", StreamOfMuchRam, false, kLongHole},
      {"StreamOfMuchRamInALongFile", "bytes of RAM are more than",
       [] { return Version2(StreamOfMuchRam(), BodyFormat::kRaw); }, false, kLongHole},
      {"BareStreamOfMuchDeviceStateInALongFile", "hostile.sav",
       [] {
         return StreamWith(std::array{BlockShape{"pc.ram", kPageSize}}, Hex(golden::kDeviceState));
       },
       false, kLongHole},
      {"BareMappedRamOfMuchRamInALongFile", "bytes of RAM are more than",
       [] { return MappedStreamOfMuchRam(FileOffset{0}); }, false, kLongHole},
      {"LongIntegrityTableInALongFile", "longer than its pages can need",
       [=] {
         const FileOffset far{kLongHole / 2};
         return Version3({0, 0, far, far, ByteCount{std::uint64_t{1} << 32}, 0}, MappedStreamOfMuchRam(start));
       },
       false, kLongHole},
      {"LongIntegrityTableInAHole", "there is none at its place",
       [=] {
         const FileOffset far{kLongHole / 2};
         const Bytes stream = Join({MappedStreamOfMuchRam(start), Bytes(2 * kMiB)});
         return Version3({0, 0, far, far, ByteCount{std::uint64_t{3} << 30}, 0}, stream);
       },
       false, kLongHole},
      {"SparseWithAHoleBehindIt", "", [=] { return SmallSparse(start); }, true, 500 * kMiB, kTightMemoryLimit},
      {"SparseWithAHoleInItsDeviceState", "hardly more than a hole", [=] { return SmallSparse(start); }, false,
       500 * kMiB, kTightMemoryLimit, true},
      {"BitmapFarAway", "far behind its header",
       [=] {
         const FileOffset far{kLongHole - 4096};
         return Version3({0, 0, far, far, ByteCount{0}, 0}, MappedStreamWithBitmapAt(start, far));
       },
       false, kLongHole},
  };
}

class HostileImageTest : public EndToEndTest, public testing::WithParamInterface<HostileImage> {
 protected:
  void SetUp() override {
    if (ARE_PROGRAMS_SANITIZED) GTEST_SKIP() << "a sanitizer needs more address space than there is to be";
    const Bytes image = GetParam().make();
    ASSERT_LE(image.size(), kLargestImage);
    WriteWholeFile(image_, AsString(image));
    if (GetParam().length > 0) std::filesystem::resize_file(image_, GetParam().length);
    if (GetParam().has_last_byte) std::ofstream(image_, std::ios::binary | std::ios::app) << 'x';
  }

  // Ends by itself, and says what is wrong.
  static void ExpectRefused(const std::vector<std::string>& arguments, const std::string& program = VMIMAGE_PROGRAM) {
    std::vector<std::string> command{"sh", "-c", fmt::format("ulimit -v {}; exec \"$@\"", GetParam().memory / 1024),
                                     "sh", program};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const Outcome outcome = RunToEnd(command);
    const bool is_taken = outcome.status == 0 || outcome.err.find("cannot start /nowhere/qemu") != std::string::npos;
    if (GetParam().may_be_taken && is_taken) return;
    EXPECT_EQ(outcome.status, 3) << arguments.front() << ": " << outcome.err;
    EXPECT_NE((outcome.err + outcome.out).find(GetParam().why), std::string::npos)
        << arguments.front() << ": " << outcome.err << outcome.out;
  }

  const std::string image_ = files_.Path("hostile.sav");
};

TEST_P(HostileImageTest, IsRefusedInLittleMemory) {
  ExpectRefused({"info", "--parallel", "2", image_});
  ExpectRefused({"verify", "--parallel", "2", image_});
  ExpectRefused({"convert", "--parallel", "2", "--to", "3", "--force", image_, ImagePath()});
  ExpectRefused({"convert", "--parallel", "2", "--to", "2", "--force", image_, ImagePath()});
  ExpectRefused({"extract", "--parallel", "2", "--block", "pc.ram", "--output", ImagePath(), "--force", image_});
}

// Before a QEMU is started.
TEST_P(HostileImageTest, IsNotRestored) {
  ExpectRefused({"--parallel", "2", "--verify", "full", image_, "--", "/nowhere/qemu"}, VMRESTORE_PROGRAM);
}

INSTANTIATE_TEST_SUITE_P(Images, HostileImageTest, testing::ValuesIn(HostileImages()),
                         [](const auto& image) { return image.param.name; });

}  // namespace
}  // namespace vmsave
