#include "reader/verify.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <cerrno>

#include "reader/chunk_reader.h"
#include "tests/io/child_process.h"
#include "tests/reader/image_copies.h"
#include "tests/reader/unreadable_sector.h"
#include "tests/scratch_directory.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

class VerifyTest : public testing::Test {
 protected:
  VerifyTest() { WriteCopy(path_, guest_, Copy::kVersion3); }

  VerifyReport Report(const ReadOptions& options = {}) const {
    Progress progress;
    return Verify(Image(path_), options, progress, Interrupt());
  }

  FileOffset PlaceOf(std::size_t block, std::uint64_t page) const {
    return Image(path_).contents().blocks[block].mapped_ram->pages_offset + PagesToBytes(PageIndex{page});
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
};

std::string RangeOf(const SmallGuest& guest, std::size_t block, std::uint64_t page) {
  const std::uint64_t first = page / kPagesPerChunk * kPagesPerChunk;
  const std::uint64_t last = std::min(first + kPagesPerChunk, guest.image().blocks[block].pages()) - 1;
  return "pages " + std::to_string(first) + "-" + std::to_string(last) + " of RAM block " +
         guest.image().blocks[block].name;
}

TEST_F(VerifyTest, FindsNothingWrongInAGoodImage) {
  const VerifyReport report = Report();
  EXPECT_TRUE(report.damage.empty());
  EXPECT_TRUE(report.has_checksums);
  EXPECT_EQ(report.checked, PagesToBytes(PageIndex{guest_.CountPresent()}));
}

TEST_F(VerifyTest, ReportsDamagedMetadataInsteadOfThrowing) {
  const FlippedBit damage(path_, FileOffset{95}, 0);
  const VerifyReport report = Report();
  ASSERT_EQ(report.damage.size(), 1U);
  EXPECT_NE(report.damage.front().find("header or description"), std::string::npos);
}

TEST_F(VerifyTest, GoesOnBehindDamagedPagesAndListsThemInOrder) {
  const FlippedBit last(path_, PlaceOf(1, 0), 0);
  std::vector<std::string> wanted;
  std::vector<std::unique_ptr<FlippedBit>> damages;
  for (std::uint64_t page = 0; page < 725; page += 160) {
    std::uint64_t present = page;
    while (!guest_.IsPresent(0, present)) ++present;
    damages.push_back(std::make_unique<FlippedBit>(path_, PlaceOf(0, present), 0));
    wanted.push_back(RangeOf(guest_, 0, present));
  }
  wanted.push_back(RangeOf(guest_, 1, 0));
  ReadOptions options;
  options.channels = 8;
  const VerifyReport report = Report(options);
  ASSERT_EQ(report.damage.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(report.damage[i].find(wanted[i]), 0U) << report.damage[i];
}

TEST_F(VerifyTest, JoinsNeighbouringDamage) {
  std::vector<std::unique_ptr<FlippedBit>> damages;
  for (const std::uint64_t chunk : {28U, 29U, 30U, 35U}) {
    std::uint64_t page = chunk * kPagesPerChunk;
    while (!guest_.IsPresent(0, page)) ++page;
    damages.push_back(std::make_unique<FlippedBit>(path_, PlaceOf(0, page), 0));
  }
  const VerifyReport report = Report();
  ASSERT_EQ(report.damage.size(), 2U);
  const std::string block = " of RAM block " + guest_.image().blocks[0].name + " (bytes " +
                            std::to_string(PlaceOf(0, 28 * kPagesPerChunk).value()) + "-" +
                            std::to_string(PlaceOf(0, 31 * kPagesPerChunk).value() - 1) +
                            " of the file): wrong checksum";
  EXPECT_EQ(report.damage[0], "pages 448-495" + block);
  EXPECT_EQ(report.damage[1].find("pages 560-575 of"), 0U) << report.damage[1];
}

TEST_F(VerifyTest, DoesNotJoinDamageOfDifferentBlocks) {
  const std::uint64_t last = guest_.image().blocks[0].pages() - 1;
  std::uint64_t present = last;
  while (!guest_.IsPresent(0, present)) --present;
  const FlippedBit first(path_, PlaceOf(0, present), 0);
  const FlippedBit second(path_, PlaceOf(1, 0), 0);
  EXPECT_EQ(Report().damage.size(), 2U);
}

std::string Lines(const VerifyReport& report) {
  std::string lines;
  for (const std::string& damage : report.damage) lines += damage + "\n";
  return lines;
}

TEST_F(VerifyTest, ListsWhatCannotBeReadAndGoesOnBehindIt) {
  std::uint64_t run = 5 * kPagesPerChunk;
  while (guest_.IsPresent(0, run - 1) || !guest_.IsPresent(0, run)) ++run;
  const FlippedBit other_damage(path_, PlaceOf(1, 0), 0);
  const std::string said = InChild([&] {
    const Image image(path_);
    if (!FailReadsAt(PlaceOf(0, run), SYS_preadv)) return kNotPermitted;
    Progress progress;
    const VerifyReport report = Verify(image, {2, EngineKind::kSync, CacheUse::kPageCache}, progress, Interrupt());
    return Lines(report) + (progress.done() == progress.total() ? "all looked at" : "not all looked at");
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said.find(RangeOf(guest_, 0, run)), 0U) << said;
  EXPECT_NE(said.find("of the file): cannot be read: Input/output error\n" + RangeOf(guest_, 1, 0)), std::string::npos)
      << said;
  EXPECT_NE(said.find("of the file): wrong checksum\nall looked at"), std::string::npos) << said;
}

TEST_F(VerifyTest, JoinsNeighbouringPagesThatCannotBeRead) {
  const std::string said = InChild([&] {
    const Image image(path_);
    if (!FailSystemCall(SYS_preadv, EIO)) return kNotPermitted;
    Progress progress;
    const VerifyReport report = Verify(image, {4, EngineKind::kSync, CacheUse::kPageCache}, progress, Interrupt());
    return std::to_string(report.damage.size()) + " " + Lines(report);
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_NE(said.find("pages 448-527 of RAM block pc.ram"), std::string::npos) << said;
  EXPECT_EQ(said.find("wrong checksum"), std::string::npos) << said;
}

TEST_F(VerifyTest, IgnoresBytesBehindTheTable) {
  Overwrite(path_, FileOffset{Image(path_).file_length().value()}, ToBytes("something"));
  EXPECT_TRUE(Report().damage.empty());
}

TEST_F(VerifyTest, ChecksTheHeaderOfAnImageWithoutATable) {
  WriteCopy(path_, guest_, Copy::kVersion3WithoutChecksums);
  EXPECT_FALSE(Report().has_checksums);
  EXPECT_TRUE(Report().damage.empty());
  const FlippedBit damage(path_, FileOffset{300}, 3);
  ExpectDamaged([&] { VerifyMetadata(Image(path_)); }, "header or description");
}

TEST_F(VerifyTest, LooksAtTheStructureOfImagesWithoutChecksums) {
  for (const Copy copy : kAllCopies) {
    if (copy == Copy::kVersion3) continue;
    WriteCopy(path_, guest_, copy);
    const VerifyReport report = Report();
    EXPECT_TRUE(report.damage.empty()) << CopyName(copy) << ": " << report.damage.front();
    EXPECT_FALSE(report.has_checksums);
  }
}

// Each compressor has checksums of its own.
TEST_F(VerifyTest, FindsAFlippedBitInEachCompressedStream) {
  const auto is_sound = [this] {
    try {
      return Report().damage.empty();
    } catch (const Error& error) {
      return error.kind() != ErrorKind::kDamaged;
    }
  };
  for (const Copy copy : kCompressedCopies) {
    WriteCopy(path_, guest_, copy);
    const std::uint64_t length = Image(path_).file_length().value();
    const std::uint64_t start = Image(path_).stream_start().value();
    for (const std::uint64_t at : {start + (length - start) / 2, length - 6}) {
      const FlippedBit damage(path_, FileOffset{at}, 4);
      EXPECT_FALSE(is_sound()) << CopyName(copy) << " at " << at;
    }
  }
}

TEST_F(VerifyTest, FindsABrokenRecordOfAStream) {
  WriteCopy(path_, guest_, Copy::kVersion2);
  const FileOffset first_record = Image(path_).stream_start() + ByteCount{26 + 17 + 8 + 15 + 16 + 17 + 13 + 5};
  const FlippedBit damage(path_, first_record + ByteCount{6}, 2);  // flag 0x400
  ASSERT_EQ(Report().damage.size(), 1U);
  EXPECT_NE(Report().damage.front().find("not known"), std::string::npos) << Report().damage.front();
}

TEST_F(VerifyTest, SpeaksOfALeftOutVmDescriptionOnlyWhereItMayHaveBeen) {
  constexpr std::string_view kHint = "suppress-vmdesc";
  WriteCopy(path_, guest_, Copy::kVersion2);
  const Bytes whole = ReadWholeFile(path_);
  Truncate(path_, whole.size() - 1);
  ASSERT_EQ(Report().damage.size(), 1U);
  EXPECT_EQ(Report().damage.front(), "it is truncated: QEMU's stream in it has no end");

  // As QEMU ends a stream with suppress-vmdesc=on: a section's footer, EOF.
  const Bytes end = Hex("7e0000001500");
  Overwrite(path_, FileOffset{whole.size() - 1}, end);
  ASSERT_EQ(Report().damage.size(), 1U);
  EXPECT_NE(Report().damage.front().find(kHint), std::string::npos) << Report().damage.front();
  ExpectDamaged([&] { VerifyMetadata(Image(path_)); }, kHint);
}

TEST_F(VerifyTest, MetadataDamageIsToldInWordsOrNotAtAll) {
  EXPECT_EQ(FindMetadataDamage(Image(path_)), std::nullopt);
  const std::uint64_t last = Image(path_).stream_start().value() - 1;
  const FlippedBit damage(path_, FileOffset{95}, 0);
  EXPECT_EQ(FindMetadataDamage(Image(path_)),
            "header or description (bytes 0-" + std::to_string(last) + " of the file): wrong checksum");
}

TEST_F(VerifyTest, StopsWhenInterrupted) {
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  Progress progress;
  EXPECT_THROW(Verify(Image(path_), {}, progress, requested), Error);
}

class VerifyWayTest : public testing::TestWithParam<IoWay> {};

TEST_P(VerifyWayTest, FindsTheSameDamage) {
  const ScratchDirectory directory;
  if (const std::string reason = ReasonAgainst(GetParam(), directory); !reason.empty()) GTEST_SKIP() << reason;
  const std::string path = directory.Path("vm.sav");
  const SmallGuest guest;
  WriteCopy(path, guest, Copy::kVersion3);
  const auto [engine, cache, channels] = GetParam();
  const ReadOptions options{channels, engine, cache};
  Progress progress;
  EXPECT_TRUE(Verify(Image(path), options, progress, Interrupt()).damage.empty());
  EXPECT_EQ(progress.done(), guest.image().ram_length());
  const FlippedBit damage(path, Image(path).contents().blocks[1].mapped_ram->pages_offset, 0);
  EXPECT_EQ(Verify(Image(path), options, progress, Interrupt()).damage.size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Ways, VerifyWayTest, kAllIoWays, IoWayName);

}  // namespace
}  // namespace vmsave
