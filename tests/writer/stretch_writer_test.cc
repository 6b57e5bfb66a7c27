#include "writer/stretch_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "io/channels.h"
#include "tests/format/byte_strings.h"
#include "tests/io/pattern_bytes.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

constexpr std::size_t kMiB = StretchWriter::kBufferBytes;

constexpr unsigned kDepth = 3;

class StretchWriterTest : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    const std::string reason = ReasonAgainst({GetParam(), CacheUse::kPageCache, 1}, directory_);
    if (!reason.empty()) GTEST_SKIP() << reason;
    engine_ = MakeEngine(GetParam(), kDepth);
  }

  Bytes Written() {
    writer_.Finish(*engine_);
    file_.Publish();
    return ReadWholeFile(directory_.Path("file"));
  }

  ScratchDirectory directory_;
  NewFile file_{directory_.Path("file"), Replace::kNo, CacheUse::kPageCache};
  StretchWriter writer_{file_};
  std::unique_ptr<IoEngine> engine_;
};

Bytes Pattern(std::size_t length) {
  Bytes bytes(length);
  FillWithPattern(bytes, 8);
  return bytes;
}

TEST_P(StretchWriterTest, WritesStretchesInTheOrderOfTheirReservation) {
  const Bytes bytes = Pattern(5 * kMiB + 4097);
  const std::size_t lengths[] = {1,        4095, kMiB - 4096, kMiB,        1, StretchWriter::kMaxStretchBytes - 1,
                                 kMiB - 1, 10,   4088,        kMiB - 4086, 0};
  std::vector<StretchWriter::Stretch> stretches;
  std::size_t total = 0;
  for (const std::size_t length : lengths) {
    if (length == 0) break;
    stretches.push_back(writer_.Reserve(length));
    EXPECT_EQ(stretches.back().begin(), FileOffset{total});
    total += length;
  }
  std::ranges::reverse(stretches);
  for (StretchWriter::Stretch& stretch : stretches) {
    stretch.Put(0, std::span(bytes).subspan(stretch.begin().value() % 1000, stretch.size()));
    writer_.Commit(stretch, *engine_);
  }
  const Bytes written = Written();
  ASSERT_EQ(written.size(), total);
  for (const StretchWriter::Stretch& stretch : stretches) {
    const std::uint64_t begin = stretch.begin().value();
    EXPECT_TRUE(std::ranges::equal(std::span(written).subspan(begin, stretch.size()),
                                   std::span(bytes).subspan(begin % 1000, stretch.size())))
        << begin;
  }
}

TEST_P(StretchWriterTest, AppendsAnyNumberOfBytes) {
  const Bytes bytes = Pattern(5 * kMiB + 4097);
  Bytes wanted;
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, kMiB - 1, 5 * kMiB + 4097, std::size_t{3}}) {
    writer_.Append(std::span(bytes).first(length), *engine_);
    wanted.insert(wanted.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
  }
  EXPECT_TRUE(Written() == wanted);
}

TEST_P(StretchWriterTest, ShowsWhereBytesLieAcrossBuffers) {
  writer_.Append(Pattern(kMiB - 10), *engine_);
  StretchWriter::Stretch stretch = writer_.Reserve(kMiB + 30);
  std::vector<iovec> pieces;
  stretch.AppendPieces(5, kMiB + 20, pieces);
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_EQ(pieces[0].iov_len, 5U);
  EXPECT_EQ(pieces[1].iov_len, kMiB);
  EXPECT_EQ(pieces[2].iov_len, 15U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pieces[1].iov_base) % kPageBytes, 0U);
}

TEST_P(StretchWriterTest, NeedsNoMoreBuffersHoweverLongAStretchIsKept) {
  const Bytes bytes = Pattern(20 * kMiB);
  StretchWriter::Stretch kept = writer_.Reserve(10);
  writer_.Append(bytes, *engine_);
  EXPECT_LE(writer_.buffer_count(), 2 * StretchWriter::kMaxBuffersOfStretch + kDepth + 1);
  kept.Put(0, std::span(bytes).first(10));
  writer_.Commit(kept, *engine_);
  const Bytes written = Written();
  EXPECT_TRUE(std::ranges::equal(std::span(written).first(10), std::span(bytes).first(10)));
  EXPECT_TRUE(std::ranges::equal(std::span(written).subspan(10), bytes));
}

TEST_P(StretchWriterTest, RefusesToFinishAFileWithAGap) {
  for (const std::size_t length : {std::size_t{1}, kMiB}) {
    StretchWriter writer(file_);
    const std::unique_ptr<IoEngine> engine = MakeEngine(GetParam(), kDepth);
    writer.Append(Pattern(length), *engine);
    writer.Reserve(length);
    EXPECT_THROW(writer.Finish(*engine), Error) << length;
  }
}

TEST_P(StretchWriterTest, ServesManyThreadsAtOnce) {
  constexpr unsigned kThreads = 8;
  RunChannels(kThreads, Interrupt(), [&](const ChannelContext& context) {
    const std::unique_ptr<IoEngine> engine = MakeEngine(GetParam(), kDepth);
    std::mt19937_64 random(context.channel());
    for (int round = 0; round < 100; ++round) {
      StretchWriter::Stretch stretch = writer_.Reserve(1 + random() % 200000);
      stretch.Put(0, Bytes(stretch.size(), static_cast<std::byte>(stretch.begin().value() % 251)));
      stretch.Put(0, Bytes(1, std::byte{0xff}));
      writer_.Commit(stretch, *engine);
    }
    writer_.Settle(*engine);
  });
  EXPECT_LE(writer_.buffer_count(), kThreads * (StretchWriter::kMaxBuffersOfStretch + kDepth) + 1);
  const Bytes written = Written();
  std::byte fill{};
  for (std::size_t at = 0; at < written.size(); ++at) {
    const bool starts = written[at] == std::byte{0xff};
    if (starts) fill = static_cast<std::byte>(at % 251);
    ASSERT_EQ(written[at], starts ? std::byte{0xff} : fill) << at;
  }
}

TEST_P(StretchWriterTest, RefusesToFinishWithAWriteOfUnknownEnd) {
  writer_.Append(Pattern(kMiB), *MakeEngine(GetParam(), 1));
  EXPECT_THROW(writer_.Finish(*engine_), Error);
}

INSTANTIATE_TEST_SUITE_P(Engines, StretchWriterTest, testing::Values(EngineKind::kSync, EngineKind::kUring),
                         [](const auto& shown) { return std::string(EngineName(shown.param)); });

}  // namespace
}  // namespace vmsave
