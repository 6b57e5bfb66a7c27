#include "convert/convert.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <filesystem>

#include "reader/memory_loader.h"
#include "reader/verify.h"
#include "tests/convert/edited_images.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"
#include "tests/writer/file_size_limit.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

constexpr const char* kDescription = "<domain><name>bare</name></domain>";

struct Target {
  TargetKind kind;
  BodyFormat compression = BodyFormat::kRaw;
  bool checksums = true;
};

// Of the compressed ones, which differ in nothing but their compressor, one.
constexpr Target kTargets[] = {{TargetKind::kVersion2},
                               {TargetKind::kVersion2, BodyFormat::kZstd},
                               {TargetKind::kVersion3},
                               {TargetKind::kVersion3, BodyFormat::kRaw, false},
                               {TargetKind::kLibvirtSparse}};

ImageKind KindOf(const Target& target) {
  if (target.kind == TargetKind::kVersion3) return ImageKind::kVersion3;
  if (target.kind == TargetKind::kLibvirtSparse) return ImageKind::kLibvirtSparse;
  return target.compression == BodyFormat::kRaw ? ImageKind::kStream : ImageKind::kCompressed;
}

bool IsBare(Copy copy) {
  return copy == Copy::kBareStream || copy == Copy::kBareMappedRam;
}

// The image holds that guest, and is whole.
void ExpectHolds(const std::string& path, const GuestImage& guest) {
  const Image image(path);
  Progress progress;
  EXPECT_TRUE(Verify(image, {}, progress, Interrupt()).damage.empty());
  std::vector<MemoryMapping> memories;
  std::vector<LoadTarget> targets;
  for (const RamBlock& block : guest.blocks) {
    memories.push_back(MemoryMapping::Anonymous(block.length()));
    targets.push_back({memories.back().bytes(), nullptr, {}});
  }
  ASSERT_EQ(image.contents().blocks.size(), guest.blocks.size());
  const LoadedRam loaded = LoadImage(image, targets, {}, PageChecks::kOn, progress, Interrupt());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    EXPECT_EQ(image.contents().blocks[i].name, guest.blocks[i].name);
    EXPECT_TRUE(std::ranges::equal(targets[i].memory, guest.blocks[i].memory)) << guest.blocks[i].name;
  }
  EXPECT_EQ(image.contents().frame.machine, guest.frame.machine);
  EXPECT_TRUE(std::ranges::equal(loaded.device_state, guest.device_state));
}

class ConvertTest : public testing::Test {
 protected:
  static ConvertOptions Options(const Target& target, const ReadOptions& transfer = {}) {
    return {target.kind, target.compression, target.checksums, transfer, SourceChecks::kMetadata, std::nullopt};
  }

  ConvertSummary ConvertSource(const ConvertOptions& options, const Interrupt& interrupt = Interrupt()) const {
    const Image source(source_path_);
    NewFile target(target_path_, Replace::kYes, options.transfer.cache);
    Progress progress;
    const ConvertSummary summary = Convert(source, target, options, progress, interrupt);
    target.Publish();
    return summary;
  }

  ConvertSummary ConvertItself(const Target& target) const {
    Progress progress;
    return ConvertInPlace(source_path_, Options(target), progress, Interrupt());
  }

  ScratchDirectory directory_;
  std::string source_path_ = directory_.Path("vm.sav");
  std::string target_path_ = directory_.Path("converted.sav");
  SmallGuest guest_;
};

class EachConversionTest : public ConvertTest, public testing::WithParamInterface<std::tuple<IoWay, Copy>> {};

TEST_P(EachConversionTest, GivesTheSameGuest) {
  const auto& [way, copy] = GetParam();
  if (const std::string reason = ReasonAgainst(way, directory_); !reason.empty()) GTEST_SKIP() << reason;
  const auto [engine, cache, channels] = way;
  guest_.image().was_running = false;
  WriteCopy(source_path_, guest_, copy);
  const Bytes before = ReadWholeFile(source_path_);
  for (const Target& target : kTargets) {
    SCOPED_TRACE(std::string(ImageKindName(KindOf(target))) + " " + std::string(BodyFormatName(target.compression)));
    ConvertOptions options = Options(target, {channels, engine, cache});
    if (IsBare(copy)) options.description = kDescription;
    const ConvertSummary summary = ConvertSource(options);

    ExpectHolds(target_path_, guest_.image());
    const Image converted(target_path_);
    EXPECT_EQ(converted.kind(), KindOf(target));
    EXPECT_EQ(converted.integrity().has_value(), target.kind == TargetKind::kVersion3 && target.checksums);
    EXPECT_EQ(converted.description(), IsBare(copy) ? kDescription : guest_.image().description);
    EXPECT_EQ(converted.was_running(), IsBare(copy));
    EXPECT_EQ(summary.file_length, converted.file_length());
    EXPECT_EQ(summary.ram, guest_.image().ram_length());
    EXPECT_EQ(ReadWholeFile(source_path_), before);
  }
}

std::string WayAndCopyName(const testing::TestParamInfo<std::tuple<IoWay, Copy>>& info) {
  const auto& [way, copy] = info.param;
  return IoWayName({way, 0}) + CopyName(copy);
}

INSTANTIATE_TEST_SUITE_P(WaysAndCopies, EachConversionTest, testing::Combine(kAllIoWays, testing::ValuesIn(kAllCopies)),
                         WayAndCopyName);

TEST_F(ConvertTest, KnowsEveryCompressor) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  for (const Copy copy : kCompressedCopies) {
    SCOPED_TRACE(CopyName(copy));
    ConvertSource(Options({TargetKind::kVersion2, BodyFormatOf(copy)}));

    EXPECT_EQ(Image(target_path_).header()->format, BodyFormatOf(copy));
    ExpectHolds(target_path_, guest_.image());
  }
}

TEST_F(ConvertTest, KeepsTheCookie) {
  constexpr std::string_view kCookie = "<cookie><cpu/></cookie>";
  for (const Copy copy : {Copy::kVersion2, Copy::kLibvirtSparse}) {
    WriteCopy(source_path_, guest_, copy);
    AddCookie(source_path_, kCookie);
    for (const Target& target : kTargets) {
      ConvertSource(Options(target));

      const Image converted(target_path_);
      const std::span<const std::byte> cookie = FindCookie(converted.before_stream(), *converted.header());
      EXPECT_EQ(AsText(cookie), std::string(kCookie) + '\0') << CopyName(copy);
      ExpectHolds(target_path_, guest_.image());
    }
  }
}

TEST_F(ConvertTest, RefusesADamagedPage) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  const Image image(source_path_);
  const auto first = image.contents().blocks[0].present.NextPresent(0, image.contents().blocks[0].pages());
  const FlippedBit damage(
      source_path_, image.contents().blocks[0].mapped_ram->pages_offset + PagesToBytes(PageIndex{first->first}), 3);
  for (const Target& target : {Target{TargetKind::kVersion2}, Target{TargetKind::kVersion2, BodyFormat::kZstd}}) {
    ExpectDamaged([&] { ConvertSource(Options(target)); }, "wrong checksum");
  }
  EXPECT_FALSE(std::filesystem::exists(target_path_));
}

// The checksums would be lost, and the way back would make new ones of the damage.
TEST_F(ConvertTest, InPlaceDropsNoChecksumsOfADamagedPage) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  const FileOffset place = Image(source_path_).contents().blocks[1].mapped_ram->pages_offset;
  const FlippedBit damage(source_path_, place, 3);
  const Bytes before = ReadWholeFile(source_path_);
  for (const Target& target :
       {Target{TargetKind::kLibvirtSparse}, Target{TargetKind::kVersion3, BodyFormat::kRaw, false}}) {
    ExpectDamaged([&] { ConvertItself(target); }, "wrong checksum");
    EXPECT_EQ(ReadWholeFile(source_path_), before);
  }
}

TEST_F(ConvertTest, RefusesALongerDescriptionThanReadersTake) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  ConvertOptions options = Options({TargetKind::kVersion2});
  options.description = std::string(kMaxDescriptionBytes / 2 + 1, ' ');
  EXPECT_THROW(ConvertSource(options), Error);
  EXPECT_FALSE(std::filesystem::exists(target_path_));
}

TEST_F(ConvertTest, AStreamWithoutVmDescriptionGoesIntoVersion3Alone) {
  const Bytes whole = MakeDeviceState();
  const std::size_t description = whole.size() - std::string_view(R"({"page_size": 4096, "devices": []})").size() - 5;
  guest_.image().device_state = std::span(whole).first(description);
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  ConvertSource(Options({TargetKind::kVersion3, BodyFormat::kRaw, false}));
  for (const Target& target : {Target{TargetKind::kVersion2}, Target{TargetKind::kLibvirtSparse}}) {
    EXPECT_THROW(ConvertSource(Options(target)), Error);
  }
  EXPECT_THROW(ConvertItself({TargetKind::kLibvirtSparse}), Error);
}

TEST_F(ConvertTest, InPlaceLeavesNothingBehindWhereTheDiskIsFull) {
  WriteCopy(source_path_, guest_, Copy::kLibvirtSparse);
  const Bytes before = ReadWholeFile(source_path_);
  {
    const FileSizeLimit limit(before.size() + 1);
    EXPECT_THROW(ConvertItself({TargetKind::kVersion3}), Error);
  }
  EXPECT_EQ(ReadWholeFile(source_path_), before);
}

TEST_F(ConvertTest, LeavesNoFileWhereTheTargetIsFull) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  const FileSizeLimit limit(300000);
  for (const Target& target : kTargets) {
    EXPECT_THROW(ConvertSource(Options(target)), Error);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1);
}

TEST_F(ConvertTest, StopsWhenInterrupted) {
  WriteCopy(source_path_, guest_, Copy::kVersion2);
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  for (const Target& target : kTargets) EXPECT_THROW(ConvertSource(Options(target), requested), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1);
}

TEST_F(ConvertTest, InPlaceGivesTheSameBytesThereAndBack) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  const Bytes version3 = ReadWholeFile(source_path_);

  EXPECT_EQ(ConvertItself({TargetKind::kLibvirtSparse}).pages, PageFate::kStayed);

  EXPECT_EQ(Image(source_path_).kind(), ImageKind::kLibvirtSparse);
  ExpectHolds(source_path_, guest_.image());
  EXPECT_EQ(Image(source_path_).file_length().value(), Image(source_path_).stream_end().value());

  EXPECT_EQ(ConvertItself({TargetKind::kVersion3}).file_length, ByteCount{version3.size()});

  EXPECT_EQ(ReadWholeFile(source_path_), version3);
}

TEST_F(ConvertTest, InPlaceOfWhatItIsAlreadyChangesNothing) {
  for (const auto& [copy, target] : {std::pair(Copy::kVersion3, Target{TargetKind::kVersion3}),
                                     std::pair(Copy::kLibvirtSparse, Target{TargetKind::kLibvirtSparse})}) {
    WriteCopy(source_path_, guest_, copy);
    const Bytes before = ReadWholeFile(source_path_);
    ConvertItself(target);
    EXPECT_EQ(ReadWholeFile(source_path_), before) << CopyName(copy);
  }
}

TEST_F(ConvertTest, InPlaceDropsAndMakesChecksums) {
  WriteCopy(source_path_, guest_, Copy::kVersion3);
  ConvertItself({TargetKind::kVersion3, BodyFormat::kRaw, false});
  EXPECT_FALSE(Image(source_path_).integrity().has_value());
  ExpectHolds(source_path_, guest_.image());
  ConvertItself({TargetKind::kVersion3});
  EXPECT_TRUE(Image(source_path_).integrity().has_value());
  ExpectHolds(source_path_, guest_.image());
}

TEST_F(ConvertTest, InPlaceIsRefusedWhereThePagesWouldMove) {
  for (const Copy copy : kAllCopies) {
    for (const Target& target : kTargets) {
      const bool has_header = !IsBare(copy) && !IsSequential(copy);
      if (has_header && target.kind != TargetKind::kVersion2) continue;
      WriteCopy(source_path_, guest_, copy);
      const Bytes before = ReadWholeFile(source_path_);
      EXPECT_THROW(ConvertItself(target), Error) << CopyName(copy);
      EXPECT_EQ(ReadWholeFile(source_path_), before);
    }
  }
}

}  // namespace
}  // namespace vmsave
