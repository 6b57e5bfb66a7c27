#include "reader/image.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <map>

#include "reader/verify.h"
#include "tests/io/child_process.h"
#include "tests/reader/image_copies.h"
#include "tests/reader/unreadable_sector.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

class ImageTest : public testing::Test {
 protected:
  std::string Write(Copy copy) const {
    WriteCopy(path_, guest_, copy);
    return path_;
  }

  // Opens the image and checks its metadata; nothing where both were content.
  std::optional<ErrorKind> Failure() const {
    try {
      VerifyMetadata(Image(path_));
    } catch (const Error& error) {
      return error.kind();
    }
    return std::nullopt;
  }

  void ExpectRefused(std::string_view words) const {
    ExpectDamaged([&] { VerifyMetadata(Image(path_)); }, words);
  }

  // `digits` at `offset` for as long as the check takes.
  void ExpectRefusedWith(std::uint64_t offset, std::string_view digits, std::string_view words) const {
    const Bytes damage = Hex(digits);
    Bytes before(damage.size());
    ReadAt(OpenFile(path_, O_RDONLY), before, FileOffset{offset});
    Overwrite(path_, FileOffset{offset}, damage);
    SCOPED_TRACE(offset);
    ExpectRefused(words);
    Overwrite(path_, FileOffset{offset}, before);
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_{{{"pc.ram", 300}, {"pc.bios", 1, SmallGuest::Place::kPrivate}, {"vga.vram", 20}}};
};

TEST_F(ImageTest, TellsTheKindOfEachImage) {
  const std::map<Copy, ImageKind> kinds{{Copy::kVersion2, ImageKind::kStream},
                                        {Copy::kVersion3, ImageKind::kVersion3},
                                        {Copy::kVersion3WithoutChecksums, ImageKind::kVersion3},
                                        {Copy::kLibvirtSparse, ImageKind::kLibvirtSparse},
                                        {Copy::kBareStream, ImageKind::kBareStream},
                                        {Copy::kBareMappedRam, ImageKind::kBareMappedRam}};
  for (const auto& [copy, kind] : kinds) {
    const Image image(Write(copy));
    EXPECT_EQ(image.kind(), kind) << CopyName(copy);
    EXPECT_EQ(image.has_fixed_offsets(), !IsSequential(copy)) << CopyName(copy);
    EXPECT_EQ(image.integrity().has_value(), copy == Copy::kVersion3) << CopyName(copy);
    EXPECT_FALSE(ImageKindName(image.kind()).empty());
  }
}

TEST_F(ImageTest, TellsWhatIsInEachImage) {
  for (const Copy copy : kAllCopies) {
    SCOPED_TRACE(CopyName(copy));
    const Image image(Write(copy));
    const StreamContents& contents = image.contents();
    EXPECT_EQ(contents.frame.machine, "pc-i440fx-7.2");
    EXPECT_EQ(contents.frame.ram_section_id, 2U);
    ASSERT_EQ(contents.blocks.size(), 3U);
    EXPECT_EQ(contents.blocks[0].name, "pc.ram");
    EXPECT_EQ(contents.blocks[0].length, ByteCount{300 * kPageBytes});
    EXPECT_EQ(contents.blocks[2].name, "vga.vram");
    const bool bare = copy == Copy::kBareStream || copy == Copy::kBareMappedRam;
    EXPECT_EQ(image.description(), bare ? "" : guest_.image().description);
    EXPECT_EQ(image.header().has_value(), !bare);
    VerifyMetadata(image);
  }
}

TEST_F(ImageTest, KnowsThePresentPagesAndTheDeviceStateOfFixedOffsets) {
  for (const Copy copy : kAllCopies) {
    if (IsSequential(copy)) continue;
    SCOPED_TRACE(CopyName(copy));
    const Image image(Write(copy));
    EXPECT_TRUE(std::ranges::equal(image.device_state(), guest_.image().device_state));
    for (std::size_t block = 0; block < 3; ++block) {
      for (std::uint64_t page = 0; page < guest_.image().blocks[block].pages(); ++page) {
        ASSERT_EQ(image.contents().blocks[block].present.Test(page), guest_.IsPresent(block, page));
      }
    }
  }
}

TEST_F(ImageTest, KnowsWhetherTheGuestRan) {
  for (const bool was_running : {true, false}) {
    guest_.image().was_running = was_running;
    EXPECT_EQ(Image(Write(Copy::kVersion2)).was_running(), was_running);
    EXPECT_EQ(Image(Write(Copy::kVersion3)).was_running(), was_running);
  }
  EXPECT_TRUE(Image(Write(Copy::kBareStream)).was_running());
}

TEST_F(ImageTest, IgnoresBytesBehindTheStreamOfALibvirtSparseImage) {
  Write(Copy::kLibvirtSparse);
  const std::uint64_t length = Image(path_).file_length().value();
  Overwrite(path_, FileOffset{length}, ToBytes("behind the stream"));
  const Image image(path_);
  EXPECT_EQ(image.stream_end(), FileOffset{length});
  EXPECT_TRUE(std::ranges::equal(image.device_state(), guest_.image().device_state));
}

// Every byte of it would be taken into memory, and hashed and written where the image is converted.
TEST_F(ImageTest, IgnoresAHoleBehindTheStreamOfALibvirtSparseImage) {
  Write(Copy::kLibvirtSparse);
  const std::uint64_t length = Image(path_).file_length().value();
  Truncate(path_, std::uint64_t{1} << 42);  // far more than device state may be
  const Image image(path_);
  EXPECT_EQ(image.stream_end(), FileOffset{length});
  EXPECT_TRUE(std::ranges::equal(image.device_state(), guest_.image().device_state));
}

TEST_F(ImageTest, RefusesDeviceStateThatIsHardlyMoreThanAHole) {
  Write(Copy::kLibvirtSparse);
  const std::uint64_t length = Image(path_).file_length().value();
  Overwrite(path_, FileOffset{length + (std::uint64_t{400} << 20)}, ToBytes("far behind the stream"));
  ExpectRefused("hardly more than a hole");
}

TEST_F(ImageTest, TakesDeviceStateWhoseZerosAreHoles) {
  constexpr std::uint64_t kZeros = 3 << 20;
  const Bytes devices = Join({Bytes(kZeros), guest_.image().device_state});
  guest_.image().device_state = devices;
  Write(Copy::kLibvirtSparse);
  const std::uint64_t begin = Image(path_).stream_end().value() - devices.size();
  ASSERT_TRUE(PunchHole(OpenFile(path_, O_RDWR),
                        {FileOffset{RoundUp(begin, kPageBytes)}, FileOffset{RoundDown(begin + kZeros, kPageBytes)}}));
  EXPECT_TRUE(std::ranges::equal(Image(path_).device_state(), devices));
}

TEST_F(ImageTest, NeedsARegularFile) {
  EXPECT_THROW(Image(directory_.Path("missing")), Error);
  EXPECT_THROW(Image(directory_.path().string()), Error);
  ASSERT_EQ(::mkfifo(directory_.Path("fifo").c_str(), 0600), 0);
  EXPECT_THROW(Image(directory_.Path("fifo")), Error);
}

// A disk's failure, not the image's damage.
std::string WhyNotOpened(const std::string& path) {
  try {
    const Image image(path);
    return "(opened)";
  } catch (const Error& error) {
    return error.kind() == ErrorKind::kFailed ? error.what() : "(not a failure)";
  }
}

TEST_F(ImageTest, TellsWhatCannotBeReadWithTheFileAndThePlace) {
  Write(Copy::kVersion3);
  const FileOffset table = Image(path_).header()->extension->integrity_offset;
  for (const FileOffset at : {FileOffset{0}, FileOffset{kSaveHeaderBytes}, Image(path_).stream_start(), table}) {
    const std::string said = InChild([&] {
      if (!FailReadsAt(at, SYS_pread64)) return kNotPermitted;
      return WhyNotOpened(path_);
    });
    if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
    EXPECT_EQ(said, "cannot read " + path_ + " at byte " + std::to_string(at.value()) + ": Input/output error");
  }
}

TEST_F(ImageTest, TellsWhatTheKernelSaysOfAFileThatCannotBeRead) {
  EXPECT_EQ(WhyNotOpened("/proc/self/mem"), "cannot read /proc/self/mem at byte 0: Input/output error");
}

TEST_F(ImageTest, RefusesWhatIsNoImage) {
  for (const std::string_view text : {"", "QEV", "LibvirtQemudSav", "#!/bin/sh\n", "QEMUxxxxxxxxxxxxxxxxxxxxx"}) {
    WriteWholeFile(path_, ToBytes(text));
    SCOPED_TRACE(text);
    ExpectRefused("it is neither a save image nor a QEMU stream");
  }
}

TEST_F(ImageTest, RefusesAPartialImage) {
  for (const Copy copy : {Copy::kVersion2, Copy::kVersion3}) {
    Write(copy);
    Overwrite(path_, FileOffset{0}, ToBytes("LibvirtQemudPart"));
    ExpectRefused("incomplete");
  }
}

TEST_F(ImageTest, KnowsHowACompressedImageIsCompressed) {
  for (const Copy copy : kCompressedCopies) {
    const Image image(Write(copy));
    EXPECT_EQ(image.kind(), ImageKind::kCompressed);
    EXPECT_EQ(image.header()->format, BodyFormatOf(copy));
  }
}

TEST_F(ImageTest, RefusesAStreamThatIsNotCompressedAsItsHeaderSays) {
  Write(Copy::kVersion2);
  for (const char* const format : {"01000000", "02000000", "03000000", "04000000", "05000000"}) {
    ExpectRefusedWith(28, format, "decompress");
  }
}

TEST_F(ImageTest, RefusesCompressedFixedOffsets) {
  const Bytes sparse = ReadWholeFile(Write(Copy::kLibvirtSparse));
  const std::uint64_t stream_start = Image(path_).stream_start().value();
  Bytes compressed(sparse.begin(), sparse.begin() + static_cast<std::ptrdiff_t>(stream_start));
  compressed[28] = std::byte{5};
  const auto compressor = MakeCompressor(BodyFormat::kZstd, 1, [&](std::span<const std::byte> bytes) {
    compressed.insert(compressed.end(), bytes.begin(), bytes.end());
  });
  compressor->Write(std::span(sparse).subspan(stream_start));
  compressor->Finish();
  WriteWholeFile(path_, compressed);
  ExpectRefused("cannot");
}

TEST_F(ImageTest, RefusesEachDamagedHeaderFieldOfVersion2) {
  Write(Copy::kVersion2);
  ExpectRefusedWith(0, "ff", "neither a save image");
  ExpectRefusedWith(16, "00000000", "version 0");
  ExpectRefusedWith(16, "03000000", "has not version 3's fields");
  ExpectRefusedWith(16, "04000000", "version 4");
  ExpectRefusedWith(20, "00000000", "description has no end");
  ExpectRefusedWith(20, "01000000", "description has no end");
  ExpectRefusedWith(20, "ff000000", "no QEMU stream");
  ExpectRefusedWith(20, "ffffff00", "within its description");
  ExpectRefusedWith(20, "ffffff7f", "too long");
  ExpectRefusedWith(24, "02000000", "was_running");
  ExpectRefusedWith(28, "06000000", "disagree");
  ExpectRefusedWith(28, "07000000", "unknown format 7");
  ExpectRefusedWith(32, "ffffff00", "cookie");
}

TEST_F(ImageTest, RefusesEachDamagedHeaderFieldOfVersion3) {
  Write(Copy::kVersion3);
  ExpectRefusedWith(16, "01000000", "disagree");
  ExpectRefusedWith(16, "04000000", "version 4");
  ExpectRefusedWith(20, "00000000", "");
  ExpectRefusedWith(24, "00000000", "wrong checksum");
  ExpectRefusedWith(28, "00000000", "has not version 3's fields");
  ExpectRefusedWith(32, "01000000", "wrong checksum");
  ExpectRefusedWith(36, "00000000", "has not version 3's fields");
  ExpectRefusedWith(40, "01000000", "features that this vmsave does not know (0x1)");
  ExpectRefusedWith(44, "01000000", "wrong checksum");
  ExpectRefusedWith(48, "ffffffffffffffff", "truncated");
  ExpectRefusedWith(48, "0000000000000000", "ends before it starts");
  ExpectRefusedWith(56, "0000000000000000", "overlaps");
  ExpectRefusedWith(56, "ffffffffffffff7f", "truncated");
  ExpectRefusedWith(56, "ffffffffffffffff", "out of range");
  ExpectRefusedWith(64, "0000000000000000", "wrong checksum");
  ExpectRefusedWith(64, "ffffffffffffff7f", "truncated");
  ExpectRefusedWith(64, "0100000000000000", "ends early");
  ExpectRefusedWith(72, "0000000000000000", "wrong checksum");
  for (const std::uint64_t reserved : {80U, 84U, 88U}) ExpectRefusedWith(reserved, "01000000", "reserved");
}

// One flipped bit made version 3 into version 2, with format 6: libvirt's sparse image, which has no checksums. It was
// taken for one, and nothing was checked any more.
TEST_F(ImageTest, RefusesAVersion3ImageWhoseVersionFieldWasDamaged) {
  Write(Copy::kVersion3);
  ExpectRefusedWith(16, "02000000", "it says version 2, but has version 3's fields");
}

TEST_F(ImageTest, NoBitOfVersion3sHeaderFlipsUnnoticed) {
  Write(Copy::kVersion3);
  for (std::uint64_t at = 0; at < kSaveHeaderBytes; ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      const FlippedBit damage(path_, FileOffset{at}, bit);
      ASSERT_EQ(Failure(), ErrorKind::kDamaged) << "bit " << bit << " of byte " << at;
    }
  }
}

TEST_F(ImageTest, RefusesATableOfOtherBlocks) {
  Write(Copy::kVersion3);
  const HeaderExtension extension = *Image(path_).header()->extension;
  IntegrityTable table = *Image(path_).integrity();
  table.blocks[0].name = "pc.rom";
  Overwrite(path_, extension.integrity_offset, EncodeIntegrityTable(table));
  ExpectRefused("other RAM blocks");
}

// A table's length comes from the file: it must not be asked of memory before it was looked at.
TEST_F(ImageTest, RefusesATableLongerThanItsBlocksCanNeed) {
  Write(Copy::kVersion3);
  Truncate(path_, std::uint64_t{1} << 42);
  ExpectRefusedWith(64, "0000000000020000", "longer than its pages can need");
}

TEST_F(ImageTest, RefusesAnImageThatHoldsNoRam) {
  ByteWriter out;
  const std::array capabilities{kIgnoreSharedCapability};
  AppendStreamStart(out, guest_.image().frame, capabilities, kPageSize);
  AppendBlockEntry(out, "pc.ram", kPageSize);
  out.AppendBigEndian<std::uint64_t>(0);
  AppendRamSectionEnd(out, guest_.image().frame);
  WriteWholeFile(path_, out.Take());
  ExpectRefused("x-ignore-shared");
}

TEST_F(ImageTest, TellsLengthAndDiskUsage) {
  const Image image(Write(Copy::kVersion3));
  EXPECT_EQ(image.file_length(), ByteCount{ReadWholeFile(path_).size()});
  EXPECT_GT(image.disk_usage(), ByteCount{0});
  EXPECT_LT(image.disk_usage(), image.file_length());
}

TEST_F(ImageTest, OpensTheSameFileForPagesAfterItsNameWasTaken) {
  const Image image(Write(Copy::kVersion3));
  std::filesystem::rename(path_, directory_.Path("moved"));
  WriteWholeFile(path_, ToBytes("another file"));
  EXPECT_EQ(FileLength(image.OpenForPages(CacheUse::kPageCache)), image.file_length());
}

}  // namespace
}  // namespace vmsave
