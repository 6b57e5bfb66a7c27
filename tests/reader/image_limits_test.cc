// Small files that claim to be large: refused before anything is made as large as they say.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>

#include "format/mapped_ram.h"
#include "format/qemu_stream.h"
#include "format/save_header.h"
#include "tests/format/golden.h"
#include "tests/io/child_process.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class ImageLimitsTest : public testing::Test {
 protected:
  // A stream without a page.
  static Bytes StreamOf(ByteCount ram) {
    const StreamFrame frame{"pc-i440fx-10.0", 2, false};
    ByteWriter stream;
    AppendLegacyHead(stream, frame, std::array{BlockShape{"pc.ram", ram}});
    AppendLegacyTail(stream, frame, Hex(golden::kDeviceState));
    return stream.Take();
  }

  std::string Write(std::span<const std::byte> bytes) const {
    WriteWholeFile(path_, bytes);
    return path_;
  }

  // The bytes, and a hole behind them.
  std::string WriteWithHole(std::span<const std::byte> bytes) const {
    Write(bytes);
    EXPECT_EQ(::truncate(path_.c_str(), off_t{1} << 43), 0);
    return path_;
  }

  // With its pages at fixed offsets, none of which is there.
  static Bytes MappedStreamOf(ByteCount ram, FileOffset start) {
    return LayOutFixedOffsets(start, {"pc-i440fx-10.0", 2, false}, {{"pc.ram", ram}}).stream_parts.front().bytes;
  }

  static Bytes Version3(const HeaderExtension& extension, std::span<const std::byte> stream) {
    SaveHeader header;
    header.state = ImageState::kComplete;
    header.version = 3;
    header.format = BodyFormat::kSparse;
    header.data_length = golden::kDataLength;
    header.extension = extension;
    Bytes image = Join({Bytes(kSaveHeaderBytes), golden::Data(), stream});
    PutSaveHeader(std::span(image).first(golden::kStreamStart), header);
    return image;
  }

  std::string WriteVersion2(std::span<const std::byte> stream) const {
    return Write(Join({Hex(golden::kHeaderV2), golden::Data(), stream}));
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
};

constexpr ByteCount kMuchRam{std::uint64_t{1} << 46};

TEST_F(ImageLimitsTest, RefusesAStreamOfMoreRamThanItsBytesCanStandFor) {
  ExpectDamaged([&] { Image(Write(StreamOf(kMuchRam))); }, "bytes of RAM are more than");
  ExpectDamaged([&] { Image(WriteVersion2(StreamOf(kMuchRam))); }, "bytes of RAM are more than");
}

TEST_F(ImageLimitsTest, RefusesACompressedStreamOfMoreRamThanItsBytesCanStandFor) {
  WriteVersion2(StreamOf(ByteCount{std::uint64_t{64} << 20}));
  Compress(path_, BodyFormat::kGzip);
  Image{path_};
  const Bytes head = ReadWholeFile(path_);
  ByteWriter image;
  image.Append(std::span(head).first(golden::kStreamStart));
  const auto compressor =
      MakeCompressor(BodyFormat::kGzip, 1, [&](std::span<const std::byte> bytes) { image.Append(bytes); });
  compressor->Write(StreamOf(kMuchRam));
  compressor->Finish();
  ExpectDamaged([&] { Image(Write(image.Take())); }, "bytes of RAM are more than");
}

TEST_F(ImageLimitsTest, RefusesAFileOfMoreRamThanItsDataCanStandForHoweverLongItsHolesAre) {
  constexpr const char* kWhy = "bytes of RAM are more than";
  ExpectDamaged([&] { Image(WriteWithHole(StreamOf(kMuchRam))); }, kWhy);
  ExpectDamaged(
      [&] {
        Image(WriteWithHole(Join({Hex(golden::kHeaderV2), golden::Data(), StreamOf(kMuchRam)})));
      },
      kWhy);
  ExpectDamaged([&] { Image(WriteWithHole(MappedStreamOf(kMuchRam, FileOffset{0}))); }, kWhy);
  const FileOffset end{std::uint64_t{1} << 42};
  const Bytes stream = MappedStreamOf(kMuchRam, FileOffset{golden::kStreamStart});
  ExpectDamaged([&] { Image(WriteWithHole(Version3({0, 0, end, {}, {}, 0}, stream))); }, kWhy);
}

TEST_F(ImageLimitsTest, RefusesATableOfMoreRamThanItsDataCanStandFor) {
  const FileOffset end{std::uint64_t{1} << 42};
  const Bytes stream = MappedStreamOf(kMuchRam, FileOffset{golden::kStreamStart});
  ExpectDamaged(
      [&] {
        Image(WriteWithHole(Version3({0, 0, end, end, ByteCount{std::uint64_t{1} << 30}, 0}, stream)));
      },
      "integrity table is longer than its pages can need");
}

// Its bytes may be anything, as long as there are so many that a long table is believed.
TEST_F(ImageLimitsTest, RefusesALongTableThatIsAHole) {
  const FileOffset end{std::uint64_t{1} << 42};
  const ByteCount length{std::uint64_t{1} << 30};
  const Bytes stream = Join({MappedStreamOf(kMuchRam, FileOffset{golden::kStreamStart}), Bytes(1 << 20)});
  const std::string image = WriteWithHole(Version3({0, 0, end, end, length, 0}, stream));
  if (kSanitized) GTEST_SKIP() << "a sanitizer takes more memory for itself";
  const auto why_refused = [&] {
    return InChild([&] {
      const rlimit limit{length.value() / 2, length.value() / 2};
      ::setrlimit(RLIMIT_DATA, &limit);
      return Image(image).path();
    });
  };

  EXPECT_NE(why_refused().find("there is none at its place"), std::string::npos) << why_refused();
  const Bytes table = EncodeIntegrityTable({});
  Overwrite(image, end, std::span(table).first(kTableHeadBytes));
  EXPECT_NE(why_refused().find("the checksum of its integrity table is wrong"), std::string::npos) << why_refused();
}

// As with virtio-mem, which leaves out what is not plugged.
TEST_F(ImageLimitsTest, TakesAStreamThatLeavesOutMostOfItsRam) {
  const ByteCount ram{std::uint64_t{128} << 20};

  EXPECT_EQ(Image(WriteVersion2(StreamOf(ram))).contents().blocks.front().length, ram);
}

}  // namespace
}  // namespace vmsave
