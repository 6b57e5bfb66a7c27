#include "writer/sequential_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/format/byte_strings.h"
#include "tests/io/pattern_bytes.h"
#include "tests/writer/file_size_limit.h"
#include "tests/writer/image_files.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

constexpr std::size_t kMiB = SequentialWriter::kBufferBytes;
constexpr unsigned kDepth = 3;

// Around the edges of blocks and buffers; the last ones use each buffer more than once.
constexpr std::size_t kLengths[] = {0,        1,        4095,         4096,         4097,           kMiB - 4096,
                                    kMiB - 1, kMiB,     kMiB + 1,     kMiB + 4095,  kMiB + 4096,    2 * kMiB - 1,
                                    3 * kMiB, 4 * kMiB, 7 * kMiB + 1, 8 * kMiB - 1, 8 * kMiB + 4096};

Bytes Pattern(std::size_t length) {
  Bytes bytes(length);
  FillWithPattern(bytes, 7);
  return bytes;
}

class SequentialWriterTest : public testing::TestWithParam<EngineAndCache> {
 protected:
  void SetUp() override {
    const auto [engine, cache] = GetParam();
    if (const std::string reason = ReasonAgainst({engine, cache, 1}, directory_); !reason.empty()) {
      GTEST_SKIP() << reason;
    }
  }

  // What the file holds in the end, and that the writer knew how much it was.
  template <class Give>
  Bytes Write(unsigned depth, Give give) {
    const auto [engine, cache] = GetParam();
    const std::string path = directory_.Path("file");
    NewFile file(path, Replace::kYes, cache);
    SequentialWriter writer(file, engine, depth);
    give(writer);
    writer.Finish();
    file.Publish();
    Bytes written = ReadWholeFile(path);
    EXPECT_EQ(writer.position(), FileOffset{written.size()});
    return written;
  }

  ScratchDirectory directory_;
};

TEST_P(SequentialWriterTest, WritesWhatIsPutIntoItsRoom) {
  std::mt19937_64 random(1);
  for (const std::size_t length : kLengths) {
    const Bytes bytes = Pattern(length);
    const Bytes written = Write(kDepth, [&](SequentialWriter& writer) {
      for (std::size_t at = 0; at < length;) {
        ASSERT_EQ(writer.position(), FileOffset{at});
        const std::span<std::byte> room = writer.Room();
        ASSERT_FALSE(room.empty());
        const std::size_t count = std::min({room.size(), length - at, 1 + random() % 300000});
        std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, room.begin());
        writer.Took(count);
        at += count;
      }
    });
    EXPECT_TRUE(written == bytes) << length;
  }
}

TEST_P(SequentialWriterTest, WritesWhatIsAppended) {
  std::mt19937_64 random(2);
  for (const std::size_t length : kLengths) {
    const Bytes bytes = Pattern(length);
    const Bytes written = Write(kDepth, [&](SequentialWriter& writer) {
      for (std::span<const std::byte> rest = bytes; !rest.empty();) {
        const std::size_t count = std::min(rest.size(), random() % (3 * kMiB));
        writer.Append(rest.first(count));
        rest = rest.subspan(count);
      }
    });
    EXPECT_TRUE(written == bytes) << length;
  }
}

TEST_P(SequentialWriterTest, NeedsNoMoreThanOneBuffer) {
  const Bytes bytes = Pattern(5 * kMiB + 123);
  EXPECT_TRUE(Write(1, [&](SequentialWriter& writer) { writer.Append(bytes); }) == bytes);
}

TEST_P(SequentialWriterTest, TakesBothKindsInTurns) {
  const Bytes bytes = Pattern(2 * kMiB + 100);
  const std::span<const std::byte> all(bytes);
  const Bytes written = Write(kDepth, [&](SequentialWriter& writer) {
    writer.Append(all.first(kMiB - 10));
    ASSERT_EQ(writer.Room().size(), 10U);
    std::ranges::copy(all.subspan(kMiB - 10, 9), writer.Room().begin());
    writer.Took(9);
    writer.Took(0);
    writer.Append(all.subspan(kMiB - 1));
  });
  EXPECT_TRUE(written == bytes);
}

TEST_P(SequentialWriterTest, LetsBytesBeReadUntilRoomIsAskedForAgain) {
  const Bytes bytes = Pattern(kMiB);
  Write(1, [&](SequentialWriter& writer) {
    const std::span<std::byte> room = writer.Room();
    std::ranges::copy(bytes, room.begin());
    writer.Took(room.size());
    EXPECT_TRUE(std::ranges::equal(room, bytes)) << "though the buffer is full and under way";
  });
}

TEST_P(SequentialWriterTest, ThrowsWhereTheFileCannotGrow) {
  const auto [engine, cache] = GetParam();
  for (const rlim_t limit : {rlim_t{0}, rlim_t{kMiB}, rlim_t{5 * kMiB}}) {
    NewFile file(directory_.Path("file"), Replace::kNo, cache);
    SequentialWriter writer(file, engine, kDepth);
    const FileSizeLimit no_growth(limit);
    try {
      writer.Append(Pattern(5 * kMiB + 1));
      writer.Finish();
      FAIL() << "nothing was thrown with a limit of " << limit;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFailed);
      EXPECT_NE(std::string(error.what()).find("File too large"), std::string::npos) << error.what();
    }
  }
}

TEST_P(SequentialWriterTest, MayBeLeftBeforeItsEnd) {
  const auto [engine, cache] = GetParam();
  NewFile file(directory_.Path("file"), Replace::kNo, cache);
  SequentialWriter writer(file, engine, kDepth);
  writer.Append(Pattern(2 * kMiB + 1));
}

INSTANTIATE_TEST_SUITE_P(Ways, SequentialWriterTest, kAllEnginesAndCaches, EngineAndCacheName);

}  // namespace
}  // namespace vmsave
