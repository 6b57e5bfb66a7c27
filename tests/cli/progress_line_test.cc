#include "cli/progress_line.h"

#include <gtest/gtest.h>
#include <pty.h>

#include "cli/progress_display.h"
#include "io/file_descriptor.h"

namespace vmsave {
namespace {

constexpr ByteCount kGiB{1 << 30};

// A GiB of four, in the second half of a second.
PhaseProgress Quarter() {
  return {"saving", kGiB, ByteCount{4 * kGiB.value()}, ByteCount{512 << 20}, 0.5};
}

TEST(ProgressLineTest, TellsPhaseShareBytesRateAndTimeLeft) {
  EXPECT_EQ(ProgressLine(Quarter(), 80),
            "saving [=====               ]   25 %  1.0 of 4.0 GiB     1.0 GiB/s     3 s left");
}

TEST(ProgressLineTest, IsShorterThanTheTerminalIsWide) {
  for (std::size_t columns = 1; columns < 200; ++columns) {
    EXPECT_LT(ProgressLine(Quarter(), columns).size(), columns) << ProgressLine(Quarter(), columns);
  }
  EXPECT_EQ(ProgressLine(Quarter(), 0), "");
}

TEST(ProgressLineTest, LeavesOutTheLeastImportantOnANarrowTerminal) {
  EXPECT_EQ(ProgressLine(Quarter(), 60), "saving [===          ]   25 %  1.0 of 4.0 GiB     1.0 GiB/s");
  EXPECT_EQ(ProgressLine(Quarter(), 50), "saving [====             ]   25 %  1.0 of 4.0 GiB");
  EXPECT_EQ(ProgressLine(Quarter(), 30), "saving [===          ]   25 %");
  EXPECT_EQ(ProgressLine(Quarter(), 20), "saving   25 %");
  EXPECT_EQ(ProgressLine(Quarter(), 10), "saving");
}

TEST(ProgressLineTest, BarDoesNotGrowWithoutBound) {
  EXPECT_EQ(ProgressLine(Quarter(), 200),
            "saving [=======                       ]   25 %  1.0 of 4.0 GiB     1.0 GiB/s     3 s left");
}

TEST(ProgressLineTest, TellsNoRateBeforeItIsKnown) {
  PhaseProgress progress = Quarter();
  progress.seconds = 0.19;
  EXPECT_EQ(ProgressLine(progress, 80), "saving [=====               ]   25 %  1.0 of 4.0 GiB");
  progress = Quarter();
  progress.moved = ByteCount{0};
  EXPECT_EQ(ProgressLine(progress, 80), "saving [=====               ]   25 %  1.0 of 4.0 GiB");
}

TEST(ProgressLineTest, PhaseWithNothingToCountHasItsNameOnly) {
  EXPECT_EQ(ProgressLine({"syncing", ByteCount{0}, ByteCount{0}, ByteCount{0}, 7}, 80), "syncing ...");
}

// A phase's bytes may be seen before its total.
TEST(ProgressLineTest, NeverTellsMoreThanAll) {
  PhaseProgress progress = Quarter();
  progress.done = ByteCount{9 * kGiB.value()};
  EXPECT_EQ(ProgressLine(progress, 80),
            "saving [====================]  100 %  4.0 of 4.0 GiB     1.0 GiB/s     0 s left");
}

TEST(ProgressLineTest, LongTimesAreToldInMinutesAndHours) {
  PhaseProgress progress = Quarter();
  progress.seconds = 60;
  EXPECT_NE(ProgressLine(progress, 80).find("  6 min left"), std::string::npos) << ProgressLine(progress, 80);
  progress.seconds = 6000;
  EXPECT_NE(ProgressLine(progress, 80).find("10 h left"), std::string::npos) << ProgressLine(progress, 80);
}

TEST(ProgressLogTest, TellsEachTenthOnceAndWithoutABar) {
  ProgressLog log;
  PhaseProgress progress = Quarter();
  EXPECT_EQ(log.Next(progress), "saving   25 %  1.0 of 4.0 GiB     1.0 GiB/s     3 s left");
  progress.done = ByteCount{29 * (progress.total.value() / 100)};
  EXPECT_EQ(log.Next(progress), "");
  progress.done = ByteCount{progress.total.value() / 2};
  EXPECT_EQ(log.Next(progress).substr(0, 13), "saving   50 %");
}

TEST(ProgressLogTest, TellsAPhaseWithNothingToCountOnce) {
  const PhaseProgress syncing{"syncing", ByteCount{0}, ByteCount{0}, ByteCount{0}, 7};
  ProgressLog log;
  EXPECT_EQ(log.Next(syncing), "syncing ...");
  EXPECT_EQ(log.Next(syncing), "");
  EXPECT_NE(log.Next(Quarter()), "");
  EXPECT_EQ(log.Next(syncing), "syncing ...") << "a phase of the same name, begun anew";
}

TEST(ProgressJsonTest, HasRateAndTimeLeft) {
  const nlohmann::json progress = ProgressJson(Quarter()).at("progress");
  EXPECT_EQ(progress.at("phase"), "saving");
  EXPECT_EQ(progress.at("done"), std::uint64_t{1} << 30);
  EXPECT_EQ(progress.at("total"), std::uint64_t{4} << 30);
  EXPECT_EQ(progress.at("bytes_per_second"), std::uint64_t{1} << 30);
  EXPECT_EQ(progress.at("eta_seconds"), 3.0);
}

TEST(ProgressJsonTest, HasNoTimeLeftBeforeItIsKnown) {
  PhaseProgress early = Quarter();
  early.seconds = 0.19;
  for (const PhaseProgress& progress : {early, PhaseProgress{"syncing", ByteCount{0}, ByteCount{0}, ByteCount{0}, 7}}) {
    const nlohmann::json object = ProgressJson(progress).at("progress");
    EXPECT_EQ(object.at("bytes_per_second"), 0);
    EXPECT_TRUE(object.at("eta_seconds").is_null());
  }
}

TEST(TerminalColumnsTest, AreThoseOfTheTerminal) {
  int terminal = -1;
  int shell = -1;
  winsize size{24, 42, 0, 0};
  if (::openpty(&terminal, &shell, nullptr, nullptr, &size) != 0) GTEST_SKIP() << "no terminal can be had";
  const FileDescriptor terminal_end(terminal, "terminal");
  const FileDescriptor shell_end(shell, "terminal");
  EXPECT_EQ(TerminalColumns(shell), 42U);
  EXPECT_EQ(TerminalColumns(-1), 80U);
}

}  // namespace
}  // namespace vmsave
