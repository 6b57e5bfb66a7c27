#include "reader/file_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <random>

#include "tests/format/byte_strings.h"
#include "tests/io/pattern_bytes.h"
#include "tests/scratch_directory.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kFileBytes = 11 * kMiB + 12345;  // more than is read ahead at once

// A file in which every stretch differs from every other.
class PatternFile {
 public:
  PatternFile() : bytes(Contents()) { WriteWholeFile(path, bytes); }

  ScratchDirectory directory;
  std::string path = directory.Path("file");
  const Bytes& bytes;

 private:
  // Made once for all tests.
  static const Bytes& Contents() {
    static const Bytes contents = [] {
      Bytes made(kFileBytes);
      FillWithPattern(made, 4);
      return made;
    }();
    return contents;
  }
};

struct Stretch {
  std::uint64_t begin;
  std::uint64_t end;
};

const Stretch kStretches[] = {{0, kFileBytes},
                              {0, 0},
                              {0, 1},
                              {0, 4096},
                              {1, 4096},
                              {4095, 4097},
                              {65638, kFileBytes},
                              {65638, kFileBytes - 1},
                              {5000, 5001},
                              {kMiB - 1, kMiB + 1},
                              {kMiB, 2 * kMiB},
                              {kMiB + 1, 9 * kMiB + 4096},
                              {123, 8 * kMiB},
                              {kFileBytes - 1, kFileBytes},
                              {kFileBytes, kFileBytes}};

TEST(FileSourceTest, GivesAnyStretchInPiecesOfAnySize) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  std::mt19937_64 random(1);
  for (const auto [begin, end] : kStretches) {
    FileSource source(file, FileOffset{begin}, FileOffset{end});
    Bytes got;
    Bytes piece(100000);
    while (const std::size_t count = source.ReadSome(std::span(piece).first(1 + random() % piece.size()))) {
      got.insert(got.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(count));
      ASSERT_EQ(source.position(), FileOffset{begin + got.size()});
    }
    EXPECT_TRUE(std::ranges::equal(got, std::span(pattern.bytes).subspan(begin, end - begin))) << begin << "-" << end;
  }
}

TEST(FileSourceTest, GoesOnWhereItWasToldTo) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  FileSource source(file, FileOffset{10}, FileOffset{kFileBytes});
  Bytes piece(20);
  for (const std::uint64_t at : {std::uint64_t{10}, std::uint64_t{40}, std::uint64_t{65536}, kMiB, kFileBytes - 20}) {
    source.SkipTo(FileOffset{at});
    source.Read(piece);
    EXPECT_TRUE(std::ranges::equal(piece, std::span(pattern.bytes).subspan(at, 20))) << at;
  }
  EXPECT_EQ(source.ReadSome(piece), 0U);
}

TEST(FileSourceTest, GivesTheLastByteOnceMore) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  for (const std::uint64_t end : {std::uint64_t{65536}, kMiB, kFileBytes}) {
    FileSource source(file, FileOffset{end - 1}, FileOffset{kFileBytes});
    Bytes byte(1);
    source.Read(byte);
    source.StepBack();
    EXPECT_EQ(source.position(), FileOffset{end - 1});
    byte[0] = ~byte[0];
    source.Read(byte);
    EXPECT_EQ(byte[0], pattern.bytes[end - 1]);
  }
}

TEST(FileSourceTest, TellsHowMuchIsLeft) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  FileSource source(file, FileOffset{10}, FileOffset{100});
  EXPECT_EQ(source.Left(), ByteCount{90});
  Bytes piece(20);
  source.Read(piece);
  EXPECT_EQ(source.Left(), ByteCount{70});
  source.SkipTo(FileOffset{200});
  EXPECT_EQ(source.Left(), ByteCount{0});
}

TEST(FileSourceTest, EndsWhereItIsToldToThoughTheFileGoesOn) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  FileSource source(file, FileOffset{0}, FileOffset{100});
  Bytes piece(101);
  ExpectDamaged([&] { source.Read(piece); }, "ends early, after 100 bytes");
}

TEST(FileSourceTest, EndsWhereItIsSkippedBehindItsEnd) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  FileSource source(file, FileOffset{0}, FileOffset{100});
  source.SkipTo(FileOffset{kFileBytes * 2});
  Bytes piece(1);
  EXPECT_EQ(source.ReadSome(piece), 0U);
}

TEST(FileSourceTest, EndsWithAFileThatIsShorterThanTold) {
  const PatternFile pattern;
  const FileDescriptor file = OpenFile(pattern.path, O_RDONLY);
  FileSource source(file, FileOffset{kFileBytes - 5}, FileOffset{kFileBytes + 5});
  Bytes piece(10);
  ExpectDamaged([&] { source.Read(piece); }, "ends early");
}

class ReadAheadTest : public testing::TestWithParam<EngineAndCache> {
 protected:
  void SetUp() override {
    const auto [engine, cache] = GetParam();
    const std::string reason = ReasonAgainst({engine, cache, 1}, pattern_.directory);
    if (!reason.empty()) GTEST_SKIP() << reason;
    pages_ = cache == CacheUse::kBypass ? OpenDirect(pattern_.path, O_RDONLY) : OpenFile(pattern_.path, O_RDONLY);
    buffered_ = OpenFile(pattern_.path, O_RDONLY);
  }

  ReadAheadSource Open(std::uint64_t begin, std::uint64_t end, const Interrupt& interrupt) {
    progress_.Begin("reading", ByteCount{end - begin});
    return {pages_,    buffered_, FileOffset{begin}, FileOffset{end}, std::get<EngineKind>(GetParam()),
            progress_, interrupt};
  }

  PatternFile pattern_;
  FileDescriptor pages_;
  FileDescriptor buffered_;
  Progress progress_;
  Interrupt never_;
};

// Also where it was the last of a piece that was read ahead, or of the file.
TEST_P(ReadAheadTest, GivesTheLastByteOnceMore) {
  for (const std::uint64_t end : {std::uint64_t{65536}, kMiB, kMiB + 1, kFileBytes}) {
    ReadAheadSource source = Open(10, kFileBytes, never_);
    Bytes bytes(end - 10);
    source.Read(bytes);
    source.StepBack();
    EXPECT_EQ(source.position(), FileOffset{end - 1});
    Bytes rest(kFileBytes - end + 1);
    source.Read(rest);
    EXPECT_TRUE(std::ranges::equal(rest, std::span(pattern_.bytes).subspan(end - 1))) << end;
  }
}

TEST_P(ReadAheadTest, GivesAnyStretchInPiecesOfAnySize) {
  std::mt19937_64 random(2);
  for (const auto [begin, end] : kStretches) {
    ReadAheadSource source = Open(begin, end, never_);
    Bytes got;
    Bytes piece(300000);
    while (const std::size_t count = source.ReadSome(std::span(piece).first(1 + random() % piece.size()))) {
      got.insert(got.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(count));
      ASSERT_EQ(source.position(), FileOffset{begin + got.size()});
    }
    EXPECT_TRUE(std::ranges::equal(got, std::span(pattern_.bytes).subspan(begin, end - begin))) << begin << "-" << end;
    EXPECT_EQ(progress_.done(), ByteCount{end - begin});
  }
}

TEST_P(ReadAheadTest, GivesAnyStretchWithoutCopyingIt) {
  for (const auto [begin, end] : kStretches) {
    ReadAheadSource source = Open(begin, end, never_);
    Bytes got;
    for (auto piece = source.TakePiece(); !piece.empty(); piece = source.TakePiece()) {
      got.insert(got.end(), piece.begin(), piece.end());
    }
    EXPECT_TRUE(std::ranges::equal(got, std::span(pattern_.bytes).subspan(begin, end - begin))) << begin << "-" << end;
    EXPECT_TRUE(source.TakePiece().empty()) << "it stays at its end";
  }
}

TEST_P(ReadAheadTest, GivesTheRestOfAPieceAfterAPartOfItWasRead) {
  ReadAheadSource source = Open(100, kFileBytes, never_);
  Bytes head(33);
  source.Read(head);
  EXPECT_TRUE(std::ranges::equal(head, std::span(pattern_.bytes).subspan(100, 33)));
  const auto rest = source.TakePiece();
  ASSERT_FALSE(rest.empty());
  EXPECT_TRUE(std::ranges::equal(rest, std::span(pattern_.bytes).subspan(133, rest.size())));
}

TEST_P(ReadAheadTest, SkipsByReading) {
  ReadAheadSource source = Open(0, kFileBytes, never_);
  source.SkipTo(FileOffset{3 * kMiB + 77});
  Bytes piece(10);
  source.Read(piece);
  EXPECT_TRUE(std::ranges::equal(piece, std::span(pattern_.bytes).subspan(3 * kMiB + 77, 10)));
}

TEST_P(ReadAheadTest, RefusesAFileThatIsShorterThanTold) {
  ReadAheadSource source = Open(10 * kMiB, 13 * kMiB, never_);
  Bytes all(3 * kMiB);
  ExpectDamaged([&] { source.Read(all); }, "ends early");
}

TEST_P(ReadAheadTest, MayBeLeftBeforeItsEnd) {
  ReadAheadSource source = Open(0, kFileBytes, never_);
  Bytes piece(10);
  source.Read(piece);
}

TEST_P(ReadAheadTest, StopsWhenInterrupted) {
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  ReadAheadSource source = Open(0, kFileBytes, requested);
  Bytes piece(10);
  EXPECT_THROW(source.Read(piece), Error);
}

INSTANTIATE_TEST_SUITE_P(Ways, ReadAheadTest, kAllEnginesAndCaches, EngineAndCacheName);

}  // namespace
}  // namespace vmsave
