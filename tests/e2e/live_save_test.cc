// Saves of a guest that runs meanwhile: the moment that the image is of, and the limits of the save.
#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr int kTries = 10;  // a snapshot may be over before it is slowed down

class LiveSaveTest : public EachQemuTest {
 protected:
  void Boot(unsigned memory_mib, const std::string& options) {
    shape_.qemu = GetParam();
    shape_.ram = Ram::kPrivate;
    shape_.memory_kib = memory_mib << 10;
    shape_.options = options;
    guest_ = std::make_unique<Guest>(files_, "guest", shape_);
    second_qmp_ = files_.Path("second.qmp");
    guest_->Boot({"-qmp", "unix:" + second_qmp_ + ",server=on,wait=off"});
  }

  // An observer beside vmsave, which has QEMU's other socket.
  std::unique_ptr<QmpClient> Observe() const { return std::make_unique<QmpClient>(second_qmp_, never_, kPatience); }

  ProgramRun StartSave(const std::vector<std::string>& options) const {
    std::vector<std::string> arguments = options;
    arguments.push_back(ImagePath());
    return ProgramRun(VmsaveCommand(*guest_, arguments));
  }

  unsigned FirstTickAfterRestore() const {
    const Guest restored(files_, "restored", shape_);
    EXPECT_TRUE(Succeeded(Restore(restored)));
    restored.console().WaitForTicks(1);
    const unsigned tick = restored.console().FirstTick();
    EXPECT_TRUE(GoesOn(restored, tick));
    return tick;
  }

  const Interrupt never_;
  GuestShape shape_;
  std::string second_qmp_;
  std::unique_ptr<Guest> guest_;
};

INSTANTIATE_TEST_SUITE_P(Both, LiveSaveTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

// vmsave is held back until the guest has gone on for some ticks. It must not be stopped for long: the guest waits for
// its first writes to be saved.
TEST_P(LiveSaveTest, SnapshotIsOfTheBeginning) {
  constexpr unsigned kTicksMeanwhile = 10;  // a hundredth of a second each, of a save of seconds
  Boot(192, "fill=90 seed=7 tick=5 passes=40");
  const std::unique_ptr<QmpClient> observer = Observe();
  for (int i = 0; i < kTries; ++i) {
    observer->TakeEvents();
    ProgramRun save = StartSave({"--live=snapshot", "--image-version", "3", "--force"});
    ASSERT_TRUE(observer->WaitEvent("RESUME", kPatience));
    const unsigned at_most = guest_->console().LastTick() + 2;  // one may be half printed
    while (!save.Ended() && guest_->console().LastTick() < at_most + kTicksMeanwhile) {
      save.Signal(SIGSTOP);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      save.Signal(SIGCONT);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    const bool lasted = !save.Ended();
    ASSERT_TRUE(Succeeded(save.Wait()));
    if (!lasted) continue;
    guest_->Kill();

    EXPECT_LE(FirstTickAfterRestore(), at_most);
    return;
  }
  FAIL() << "no snapshot lasted long enough";
}

TEST_P(LiveSaveTest, SnapshotOfAPausedGuestDoesNotStartIt) {
  Boot(64, "fill=50 seed=7 tick=10 passes=4");
  guest_->Connect()->Execute("stop");

  ASSERT_TRUE(Succeeded(Save(*guest_, {"--live=snapshot", "--image-version", "3"})));

  EXPECT_TRUE(StandsStill(*guest_));
  guest_->Connect()->Execute("cont");
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(LiveSaveTest, PrecopyIsOfTheEnd) {
  constexpr unsigned kTicksMeanwhile = 20;
  Boot(64, "fill=50 seed=7 tick=10 passes=4");
  const unsigned before = guest_->console().LastTick();
  ProgramRun save = StartSave({"--live", "--image-version", "3", "--max-bandwidth", "10M"});
  guest_->console().WaitForTicks(kTicksMeanwhile);
  ASSERT_FALSE(save.Ended()) << "the save was over too soon";

  ASSERT_TRUE(Succeeded(save.Wait()));

  EXPECT_GT(FirstTickAfterRestore(), before + kTicksMeanwhile);
}

// QEMU before 9.0 loses changes of a guest that it emulates.
TEST_P(LiveSaveTest, PrecopyThatCannotBeTrustedIsWarnedOf) {
  Boot(64, "fill=50 seed=7 tick=20 passes=4");
  const auto warns = [&](const std::string& live) {
    const Outcome save = Save(*guest_, {live, "--image-version", "3", "--after", "resume", "--force"});
    EXPECT_TRUE(Succeeded(save));
    return save.err.find("warning: QEMU 7.2 without KVM loses some changes") != std::string::npos;
  };

  EXPECT_EQ(warns("--live"), GetParam() == WhichQemu::kOld);
  EXPECT_FALSE(warns("--live=snapshot"));
}

// As somebody else wanted it, who may have had a reason.
TEST_P(LiveSaveTest, GuestThatIsPausedMeanwhileStaysPaused) {
  for (const std::string version : {"2", "3"}) {
    SCOPED_TRACE("version " + version);
    Boot(64, "fill=90 seed=7 tick=10 passes=4");
    ProgramRun save =
        StartSave({"--live", "--image-version", version, "--max-bandwidth", "50M", "--after", "resume", "--force"});
    const std::unique_ptr<QmpClient> observer = Observe();
    WaitUntil("the migration",
              [&] { return save.Ended() || observer->Execute("query-migrate").value("status", "") == "active"; });
    observer->Execute("stop");
    ASSERT_FALSE(save.Ended()) << "the save was over too soon";

    ASSERT_TRUE(Succeeded(save.Wait()));

    EXPECT_TRUE(StandsStill(*guest_));
    EXPECT_EQ(InfoOf(ImagePath()).at("was_running"), false);
    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    guest_->Kill();
  }
}

// The guest changes more than may be sent, so that nothing but the time-out can end the save.
TEST_P(LiveSaveTest, TimeoutEndsASaveThatWouldNotEnd) {
  Boot(64, "fill=90 seed=7 tick=20 passes=4 dirty=2000");

  const Outcome save = Save(*guest_, {"--live", "--image-version", "3", "--max-bandwidth", "16M", "--downtime-limit",
                                      "1", "--timeout", "1", "--after", "resume", "--progress", "json"});

  ASSERT_TRUE(Succeeded(save));
  const std::string last_line = save.out.substr(save.out.rfind('\n', save.out.size() - 2) + 1);
  const nlohmann::json totals = nlohmann::json::parse(last_line).at("completed");
  EXPECT_GE(totals.at("seconds").get<double>(), 1.0);
  EXPECT_GE(totals.at("paused_seconds").get<double>(), 0.1) << "it was not the time-out that ended the save";
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(LiveSaveTest, LimitsReachQemuForThisSaveOnly) {
  Boot(64, "fill=90 seed=7 tick=20 passes=4");
  const nlohmann::json before = MigrationSettingsOf(*guest_);
  ProgramRun save = StartSave({"--live", "--image-version", "3", "--max-bandwidth", "8M", "--downtime-limit", "1234",
                               "--auto-converge", "--after", "resume"});
  const std::unique_ptr<QmpClient> observer = Observe();
  WaitUntil("the migration",
            [&] { return save.Ended() || observer->Execute("query-migrate").value("status", "") == "active"; });

  const nlohmann::json parameters = observer->Execute("query-migrate-parameters");
  const nlohmann::json capabilities = observer->Execute("query-migrate-capabilities");
  ASSERT_FALSE(save.Ended());
  save.Signal(SIGINT);
  save.Wait();

  EXPECT_EQ(parameters.at("downtime-limit"), 1234);
  EXPECT_EQ(parameters.at("max-bandwidth"), 8 << 20);
  EXPECT_NE(std::ranges::find(capabilities, nlohmann::json{{"capability", "auto-converge"}, {"state", true}}),
            capabilities.end());
  EXPECT_EQ(nlohmann::json::diff(before, MigrationSettingsOf(*guest_)), nlohmann::json::array());
}

}  // namespace
}  // namespace vmsave
