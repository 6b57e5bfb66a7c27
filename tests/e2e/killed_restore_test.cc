// vmrestore is killed: its guard leaves a guest that runs, or no QEMU.
#include <fmt/format.h>
#include <signal.h>

#include <filesystem>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

constexpr unsigned kUsualStride = 37;

class KilledRestoreTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    shape_.memory_kib = 48 << 10;
    saved_ = std::make_unique<Guest>(files_, "saved", shape_);
    saved_->Boot();
    ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));
    before_ = ReadWholeFile(ImagePath());
  }

  // Whether the guest runs in a QEMU; else none is left.
  bool Runs(const Outcome& outcome, const Guest& restored) const {
    if (restored.Processes().empty()) {
      EXPECT_EQ(outcome.status, kKilled);
      return false;
    }
    EXPECT_TRUE(GoesOn(restored));
    return true;
  }

  void ExpectAllOrNothing(const std::string& way, const std::vector<std::string>& more_options) {
    const FaultSteps steps = ChooseFaultSteps(kUsualStride);
    int kills = 0;
    for (unsigned step = steps.start;; step += steps.stride) {
      SCOPED_TRACE(fmt::format("{}, killed at step {}: {}", way, step, steps.Text()));
      Guest restored(files_, fmt::format("restored-{}-{}", way, step), shape_);
      restored.PrintToCopyOf(*saved_);
      std::vector<std::string> command = VmrestoreCommand(restored, {"--detach", "--via", way, ImagePath()});
      command.insert(command.end(), more_options.begin(), more_options.end());
      const Outcome outcome = RunToEndOfGuard(WithFault("kill", step, sockets_.path(), command), ImagePath());

      const bool runs = Runs(outcome, restored);
      ASSERT_TRUE(runs || outcome.status == kKilled) << outcome.err;
      if (outcome.status == 0) break;
      ++kills;
    }
    EXPECT_GT(kills, 0);
    EXPECT_TRUE(ReadWholeFile(ImagePath()) == before_);
    EXPECT_TRUE(std::filesystem::is_empty(sockets_.path()));
  }

  ScratchDirectory sockets_{std::filesystem::temp_directory_path()};  // names of sockets are short
  GuestShape shape_;
  std::unique_ptr<Guest> saved_;
  std::string before_;
};

INSTANTIATE_TEST_SUITE_P(Both, KilledRestoreTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(KilledRestoreTest, AtAnyStepLeavesTheGuestRunningOrNoQemu) {
  ExpectAllOrNothing("memory", {});
  ExpectAllOrNothing("multifd", {});
  ExpectAllOrNothing("stream", {});
  if (GetParam() == WhichQemu::kNew) ExpectAllOrNothing("native", {});
}

// Nothing that vmrestore did not start is ended: neither the QEMU that waits, nor what only looks like one.
TEST_P(KilledRestoreTest, LeavesAQemuThatWaitsAlone) {
  const ProgramRun bystander({"sh", "-c", "sleep 1000", ""});
  for (const unsigned step : {2U, 6U, 10U}) {
    Guest waiting(files_, fmt::format("waiting-{}", step), shape_);
    waiting.Start({"-incoming", "defer"});

    const Outcome outcome =
        RunToEndOfGuard(WithFault("kill", step, sockets_.path(),
                                  {VMRESTORE_PROGRAM, "--qmp", waiting.qmp_path(), "--parallel", "4", ImagePath()}),
                        ImagePath());

    EXPECT_EQ(outcome.status, kKilled) << outcome.err;
    EXPECT_EQ(waiting.Processes().size(), 1U);
    EXPECT_EQ(::kill(bystander.pid(), 0), 0);
  }
  EXPECT_TRUE(std::filesystem::is_empty(sockets_.path()));
}

TEST_P(KilledRestoreTest, AlsoWithAQemuThatDaemonizes) {
  ExpectAllOrNothing("stream", {"-daemonize"});
}

// Who kills the guard takes nothing but the guard.
TEST_P(KilledRestoreTest, RestoreWhoseGuardIsKilledGoesOnAndSaysSo) {
  Guest restored(files_, "restored", shape_);
  restored.PrintToCopyOf(*saved_);

  const Outcome outcome =
      RunToEnd(WithFault("killguard", 1, sockets_.path(), VmrestoreCommand(restored, {"--detach", ImagePath()})));

  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("vmrestore: warning: its guard"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(restored));
  EXPECT_TRUE(std::filesystem::is_empty(sockets_.path()));
}

}  // namespace
}  // namespace vmsave
