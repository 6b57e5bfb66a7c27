// Signals and deaths while QEMU sends or writes the guest itself: no file is left, QEMU is set as it was, and the guest
// runs on.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <ostream>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr int kTries = 10;  // a save may be over before it is caught in the middle
constexpr std::chrono::milliseconds kMillisecond{1};
constexpr std::chrono::milliseconds kBeforeThePages{30};
constexpr int kMomentsOfASave = 12;

struct Saving {
  std::string name;
  WhichQemu qemu;
  std::vector<std::string> options;
};

std::ostream& operator<<(std::ostream& out, const Saving& saving) {
  return out << saving.name;
}

class InterruptedMigrationTest : public EndToEndTest, public testing::WithParamInterface<Saving> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    GuestShape shape;
    shape.qemu = GetParam().qemu;
    shape.ram = Ram::kPrivate;
    shape.memory_kib = 96 << 10;
    shape.options = "fill=90 seed=7 tick=20 passes=4 dirty=40 rezero=20";
    guest_ = std::make_unique<Guest>(files_, "guest", shape);
    guest_->Boot();
    SetWhatNobodyElseWouldSet();
    settings_ = MigrationSettingsOf(*guest_);
    standard_input_ = StandardInput();
  }

  std::vector<std::string> CommandWith(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = GetParam().options;
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.insert(arguments.end(), {"--after", "resume", ImagePath()});
    return VmsaveCommand(*guest_, arguments);
  }

  // A snapshot cannot be held back.
  std::vector<std::string> SlowCommand() const {
    const bool is_snapshot = std::ranges::count(GetParam().options, "--live=snapshot") > 0;
    return CommandWith(is_snapshot ? std::vector<std::string>() : std::vector<std::string>{"--max-bandwidth", "20M"});
  }

  // A slow save, caught when so much of it is on its way to the disk.
  std::unique_ptr<ProgramRun> SaveInTheMiddle(std::uint64_t bytes) const {
    for (int i = 0; i < kTries; ++i) {
      std::filesystem::remove(ImagePath());
      auto save = std::make_unique<ProgramRun>(SlowCommand());
      WaitUntil("bytes of the image", [&] { return save->Ended() || BytesWritten() > bytes; });
      if (!save->Ended()) return save;
      const Outcome outcome = save->Wait();
      if (outcome.status != 0) throw std::runtime_error("the save failed: " + outcome.err);
    }
    throw std::runtime_error("no save took long enough to be caught in the middle");
  }

  std::chrono::milliseconds TimeOfWholeSave() const {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(Succeeded(RunToEnd(CommandWith({}))));
    const auto time = std::chrono::steady_clock::now() - start;
    std::filesystem::remove(ImagePath());
    return std::chrono::duration_cast<std::chrono::milliseconds>(time);
  }

  void ExpectAsBefore() const {
    EXPECT_TRUE(FilesBesideImage().empty());
    EXPECT_EQ(guest_->Status(), "running");
    EXPECT_EQ(nlohmann::json::diff(settings_, MigrationSettingsOf(*guest_)), nlohmann::json::array());
    EXPECT_EQ(StandardInput(), standard_input_);
  }

  std::unique_ptr<Guest> guest_;

 private:
  // QEMU's descriptor 0, which QEMU >= 8.1 closes where a snapshot ends before writes are tracked.
  std::string StandardInput() const {
    std::error_code closed;
    return std::filesystem::read_symlink(fmt::format("/proc/{}/fd/0", guest_->Processes().front()), closed).string();
  }

  void SetWhatNobodyElseWouldSet() const {
    const std::unique_ptr<QmpClient> qmp = guest_->Connect();
    qmp->Execute("migrate-set-parameters",
                 {{"max-bandwidth", 12345678}, {"downtime-limit", 456}, {"multifd-channels", 3}});
    qmp->Execute("migrate-set-capabilities", {{"capabilities", {{{"capability", "auto-converge"}, {"state", true}}}}});
  }

  std::uint64_t BytesWritten() const {
    std::uint64_t bytes = 0;
    for (const std::string& name : FilesBesideImage()) {
      struct stat status {};
      if (::stat(ImagePath(name).c_str(), &status) == 0) bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
    }
    return bytes;
  }

  nlohmann::json settings_;
  std::string standard_input_;
};

TEST_P(InterruptedMigrationTest, CtrlCInTheMiddleUndoesTheSave) {
  for (const std::uint64_t mebibytes : {0, 4, 30}) {
    SCOPED_TRACE(fmt::format("after {} MiB", mebibytes));
    const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(mebibytes * kMiB);

    save->Signal(SIGINT);

    EXPECT_TRUE(Refused(save->Wait(), 130, "interrupted"));
    ExpectAsBefore();
    guest_->console().WaitForTicks(2);
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

// At whatever moment it comes, either all is undone, or the image is complete.
TEST_P(InterruptedMigrationTest, SignalAtAnyMomentLeavesAllOrNothing) {
  const std::chrono::milliseconds whole = TimeOfWholeSave();
  const std::chrono::milliseconds step = whole / kMomentsOfASave + kMillisecond;
  for (auto moment = kMillisecond; moment < whole + step;
       moment += moment < kBeforeThePages ? 2 * kMillisecond : step) {
    SCOPED_TRACE(fmt::format("signal after {} ms", moment.count()));
    ProgramRun save(CommandWith({}));
    std::this_thread::sleep_for(moment);
    save.Signal(SIGINT);

    ExpectWholeOrInterrupted(save.Wait());
    ASSERT_NO_FATAL_FAILURE(ExpectAsBefore());
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(InterruptedMigrationTest, GuestIsSavedAfterAnInterruptedSave) {
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(4 * kMiB);
  save->Signal(SIGINT);
  ASSERT_EQ(save->Wait().status, 130);

  EXPECT_TRUE(Succeeded(RunToEnd(CommandWith({}))));

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  std::filesystem::remove(ImagePath());
  ExpectAsBefore();
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(InterruptedMigrationTest, PausedGuestStaysPaused) {
  guest_->Connect()->Execute("stop");
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(4 * kMiB);

  save->Signal(SIGINT);

  EXPECT_EQ(save->Wait().status, 130);
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(StandsStill(*guest_));
}

TEST_P(InterruptedMigrationTest, DeathOfTheGuestIsAnError) {
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(4 * kMiB);

  guest_->Kill();

  EXPECT_TRUE(Refused(save->Wait(), 1, "vmsave: "));
  EXPECT_TRUE(FilesBesideImage().empty());
}

std::vector<Saving> EachSaving() {
  std::vector<Saving> savings;
  for (const bool live : {false, true}) {
    const auto add = [&](const std::string& from, const std::string& version, WhichQemu qemu) {
      Saving saving{from + "_Version" + version + (qemu == WhichQemu::kOld ? "_Old" : "_New") + (live ? "_Live" : ""),
                    qemu,
                    {"--from", from, "--image-version", version, "--parallel", "4"}};
      if (live) saving.options.emplace_back("--live");
      savings.push_back(saving);
    };
    add("multifd", "3", WhichQemu::kOld);
    add("multifd", "2", WhichQemu::kNew);
    add("stream", "2", WhichQemu::kOld);
    add("stream", "3", WhichQemu::kNew);
    add("qemu", "3", WhichQemu::kNew);
  }
  for (const WhichQemu qemu : {WhichQemu::kOld, WhichQemu::kNew}) {
    savings.push_back({qemu == WhichQemu::kOld ? "Snapshot_Old" : "Snapshot_New",
                       qemu,
                       {"--live=snapshot", "--image-version", "3", "--parallel", "1"}});
  }
  return savings;
}

INSTANTIATE_TEST_SUITE_P(Sources, InterruptedMigrationTest, testing::ValuesIn(EachSaving()),
                         [](const auto& shown) { return shown.param.name; });

}  // namespace
}  // namespace vmsave
