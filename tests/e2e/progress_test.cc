// What the programs tell while they work and at their end.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/full_pipe.h"

namespace vmsave {
namespace {

std::vector<nlohmann::json> ParseLines(const std::string& text) {
  std::vector<nlohmann::json> objects;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  return objects;
}

void ExpectProgress(const std::vector<nlohmann::json>& lines) {
  ASSERT_GE(lines.size(), 2U);
  for (auto line = lines.begin(); line + 1 != lines.end(); ++line) {
    const nlohmann::json& progress = line->at("progress");
    for (const char* key : {"done", "total", "bytes_per_second"}) EXPECT_TRUE(progress.at(key).is_number()) << *line;
    EXPECT_TRUE(progress.at("phase").is_string()) << *line;
    EXPECT_TRUE(progress.contains("eta_seconds")) << *line;
  }
}

class ProgressTest : public EndToEndTest {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    saved_ = std::make_unique<Guest>(files_, "saved", GuestShape{});
    saved_->Boot();
  }

  std::unique_ptr<Guest> saved_;
};

TEST_F(ProgressTest, SummaryTellsWhatWasSaved) {
  const Outcome save = Save(*saved_, {"--image-version", "3"});

  ASSERT_TRUE(Succeeded(save));
  const std::regex summary(R"(saved vm1: 64\.\d MiB RAM, \d+\.\d MiB written, \d+\.\d MiB zero, )"
                           R"(\d+(\.\d\d s| ms) \(.*/s\), guest paused \d+(\.\d\d s| ms), QEMU ended, )"
                           R"(from memory\n)");
  EXPECT_TRUE(std::regex_match(save.out, summary)) << save.out;
}

TEST_F(ProgressTest, SummaryTellsWhatBecameOfTheGuest) {
  const auto ending_of = [this](const std::string& after) {
    const Outcome save = Save(*saved_, {"--force", "--after", after});
    EXPECT_TRUE(Succeeded(save));
    return save.out.substr(save.out.rfind(", guest "));
  };

  EXPECT_EQ(ending_of("resume"), ", guest runs on, from memory\n");
  EXPECT_EQ(ending_of("pause"), ", guest is paused, from memory\n");
}

TEST_F(ProgressTest, SummaryTellsThatAPausedGuestIsNotResumed) {
  saved_->Connect()->Execute("stop");

  const Outcome save = Save(*saved_, {"--after", "resume"});

  ASSERT_TRUE(Succeeded(save));
  EXPECT_NE(save.out.find("guest paused 0 ms, guest is paused, from memory\n"), std::string::npos) << save.out;
}

TEST_F(ProgressTest, RestoreTellsTheWayItTook) {
  const Guest restored(files_, "restored", GuestShape{});
  ASSERT_TRUE(Succeeded(Save(*saved_)));

  const Outcome restore = Restore(restored);

  ASSERT_TRUE(Succeeded(restore));
  EXPECT_TRUE(std::regex_search(restore.err, std::regex("restored vm1: 64\\.\\d MiB RAM, .*via memory, running")))
      << restore.err;
}

TEST_F(ProgressTest, JsonOfASaveEndsWithItsTotals) {
  const Outcome save = Save(*saved_, {"--progress", "json", "--image-version", "3"});

  ASSERT_TRUE(Succeeded(save));
  const std::vector<nlohmann::json> lines = ParseLines(save.out);
  ExpectProgress(lines);
  const nlohmann::json& totals = lines.back().at("completed");
  EXPECT_EQ(totals.at("guest"), "vm1");
  EXPECT_EQ(totals.at("image"), ImagePath());
  EXPECT_EQ(totals.at("from"), "memory");
  EXPECT_EQ(totals.at("why_not_better"), "");
  EXPECT_GE(totals.at("ram_bytes").get<std::uint64_t>(), std::uint64_t{64} << 20);
  EXPECT_EQ(totals.at("written_bytes").get<std::uint64_t>() + totals.at("zero_bytes").get<std::uint64_t>(),
            totals.at("ram_bytes").get<std::uint64_t>());
}

TEST_F(ProgressTest, JsonOfARestoreEndsWithItsTotals) {
  const Guest restored(files_, "restored", GuestShape{});
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));

  const Outcome restore = Restore(restored, {"--progress", "json"});

  ASSERT_TRUE(Succeeded(restore));
  const std::vector<nlohmann::json> lines = ParseLines(restore.out);
  ExpectProgress(lines);
  EXPECT_EQ(lines.back().at("completed").at("via"), "memory");
  EXPECT_EQ(lines.back().at("completed").at("running"), true);
}

TEST_F(ProgressTest, JsonOfAFailureEndsWithItsError) {
  WriteWholeFile(ImagePath(), "precious");

  const Outcome save = Save(*saved_, {"--progress", "json"});

  EXPECT_TRUE(Refused(save, 1, "exists"));
  const nlohmann::json failed = ParseLines(save.out).back().at("failed");
  EXPECT_NE(failed.at("error").get<std::string>().find("exists"), std::string::npos) << failed;
  EXPECT_TRUE(failed.at("done").is_number());
  EXPECT_TRUE(failed.at("total").is_number());
}

// Whatever goes wrong, and be it before the work starts.
TEST_F(ProgressTest, JsonHasOneClosingLine) {
  const std::string missing = files_.Path("missing");
  const std::vector<std::vector<std::string>> commands{
      {VMSAVE_PROGRAM, "--qmp", missing, ImagePath()},
      {VMSAVE_PROGRAM, "--synthetic", "1M", missing + "/vm1.sav"},
      {VMSAVE_PROGRAM, "--synthetic", "1M", "--config", missing, ImagePath()},
      {VMSAVE_PROGRAM, "--synthetic", "1M", ImagePath()},
      {VMRESTORE_PROGRAM, missing, "--", "qemu"},
      {VMRESTORE_PROGRAM, "--qmp", missing, ImagePath()},
      {VMIMAGE_PROGRAM, "verify", missing},
      {VMIMAGE_PROGRAM, "verify", ImagePath()}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin() + (command[0] == VMIMAGE_PROGRAM ? 2 : 1), {"--progress", "json"});
    const Outcome outcome = RunToEnd(command);
    const std::vector<nlohmann::json> lines = ParseLines(outcome.out);
    const auto closes = [](const nlohmann::json& line) {
      return line.contains("completed") || line.contains("failed");
    };
    EXPECT_EQ(std::ranges::count_if(lines, closes), 1) << outcome.out << outcome.err;
    EXPECT_TRUE(!lines.empty() && lines.back().contains(outcome.status == 0 ? "completed" : "failed")) << outcome.out;
  }
}

// Caught in the middle, when the guest stands still; some saves may be over before.
TEST_F(ProgressTest, InterruptedSaveSaysThatTheGuestRunsAgain) {
  GuestShape shape;
  shape.memory_kib = 320 << 10;
  shape.options = "fill=90 seed=7 tick=20 passes=4";
  Guest large(files_, "large", shape);
  large.Boot();
  for (int i = 0; i < 20; ++i) {
    std::filesystem::remove(ImagePath());
    ProgramRun save(VmsaveCommand(
        large, {"--image-version", "3", "--parallel", "1", "--progress", "json", "--after", "resume", ImagePath()}));
    WaitUntil("pages on their way", [&] { return save.Ended() || save.out().find("\"saving\"") != std::string::npos; });
    save.Signal(SIGINT);
    const Outcome outcome = save.Wait();
    if (outcome.status == 0) continue;
    EXPECT_TRUE(Refused(outcome, 130, "interrupted by the operator (no image was written, and the guest runs again)"));
    EXPECT_EQ(large.Status(), "running");
    return;
  }
  FAIL() << "no save took long enough to be caught in the middle";
}

// `command`, with what a shell makes of `redirection`.
std::vector<std::string> Redirected(const std::string& redirection, const std::vector<std::string>& command) {
  std::vector<std::string> whole{"sh", "-c", "exec \"$@\" " + redirection, "sh"};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

TEST_F(ProgressTest, SaveEndsWhereNobodyReadsItsProgress) {
  const FullPipe pipe(files_.Path("pipe"));
  const std::vector<std::string> save =
      VmsaveCommand(*saved_, {"--progress", "json", "--image-version", "3", "--after", "resume", ImagePath()});

  EXPECT_TRUE(Refused(RunToEnd(Redirected("> " + pipe.path(), save)), 1,
                      "vmsave: cannot write the closing line to standard output: nobody reads it (what it was to tell "
                      "of is done all the same)"));

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  EXPECT_TRUE(GoesOn(*saved_));
}

TEST_F(ProgressTest, SaveWhoseLinesNobodyReadsIsDone) {
  const FullPipe pipe(files_.Path("pipe"));
  const std::vector<std::string> save = VmsaveCommand(*saved_, {"--progress", "bar", "--after", "resume", ImagePath()});

  EXPECT_TRUE(Succeeded(RunToEnd(Redirected("2> " + pipe.path(), save))));

  EXPECT_TRUE(GoesOn(*saved_));
}

TEST_F(ProgressTest, ClosingLineThatCannotBeWrittenIsAnError) {
  const std::vector<std::vector<std::string>> commands{
      {VMSAVE_PROGRAM, "--synthetic", "1M", "--progress", "json", ImagePath()},
      {VMIMAGE_PROGRAM, "verify", "--progress", "json", ImagePath()}};
  for (const std::vector<std::string>& command : commands) {
    EXPECT_TRUE(Refused(RunToEnd(Redirected("> /dev/full", command)), 1, "No space left on device (what it was to"));
  }
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
}

// The guest runs.
TEST_F(ProgressTest, RestoreWhoseClosingLineCannotBeWrittenStaysWithItsQemu) {
  Guest restored(files_, "restored", GuestShape{});
  restored.PrintTo(*saved_);
  ASSERT_TRUE(Succeeded(Save(*saved_)));
  std::vector<std::string> command = VmrestoreCommand(restored, {"--progress", "json", ImagePath()});
  command.insert(command.end(), {"-qmp", "unix:" + restored.qmp_path() + ",server=on,wait=off"});
  ProgramRun restore(Redirected("> /dev/full", command));

  EXPECT_TRUE(GoesOn(restored));
  EXPECT_FALSE(restore.Ended());
  restored.Connect()->Execute("quit");

  EXPECT_TRUE(Refused(restore.Wait(), 1, "No space left on device"));
}

// What is written to a file stays there: no escape sequences, and nothing that is told twice.
TEST_F(ProgressTest, LinesTakeThePlaceOfTheBarWhereNoTerminalIs) {
  const Outcome save = Save(*saved_, {"--progress", "bar"});

  ASSERT_TRUE(Succeeded(save));
  EXPECT_EQ(save.err.find_first_of("\r\x1b["), std::string::npos) << save.err;
  std::istringstream lines(save.err);
  std::string before;
  for (std::string line; std::getline(lines, line); before = line) EXPECT_NE(line, before);
  EXPECT_FALSE(before.empty());
}

TEST_F(ProgressTest, BarIsNotShownWhereNoTerminalIs) {
  const Outcome save = Save(*saved_);

  ASSERT_TRUE(Succeeded(save));
  EXPECT_EQ(save.err, "");
}

}  // namespace
}  // namespace vmsave
