// vmsave is killed: its guard leaves all or nothing, and the guest goes on.
#include <fmt/format.h>

#include <filesystem>
#include <ostream>

#include "qemu/guest_facts.h"
#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"
#include "tests/e2e/full_pipe.h"
#include "tests/e2e/ways_to_save.h"

namespace vmsave {
namespace {

constexpr unsigned kUsualStride = 23;

bool IsUsualOfNewQemu(const WayToSave& way) {
  return IsUsual(way) && way.qemu == WhichQemu::kNew;
}

class KilledSaveTest : public EndToEndTest, public testing::WithParamInterface<WayToSave> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam().qemu;
    shape_.ram = GetParam().ram;
    shape_.memory_kib = 48 << 10;
    shape_.options = "fill=50 seed=7 tick=20 passes=4 dirty=40 rezero=20";
    guest_ = std::make_unique<Guest>(files_, "guest", shape_);
    guest_->Boot();
    SetWhatNobodyElseWouldSet();
    settings_ = MigrationSettingsOf(*guest_);
  }

  std::vector<std::string> Command(const std::string& after) const {
    std::vector<std::string> arguments = GetParam().options;
    arguments.insert(arguments.end(), {"--parallel", "3", "--after", after, ImagePath()});
    return VmsaveCommand(*guest_, arguments);
  }

  Outcome SaveKilledAt(const std::string& what, unsigned step, const std::string& after) const {
    return RunToEndOfGuard(WithFault(what, step, sockets_.path(), Command(after)), ImagePath());
  }

  // Kills a save at every stride-th step, until one has fewer steps. `check` is told the outcome of each, and whether
  // it left an image.
  template <class Check>
  void KillAtSteps(const std::string& after, const Check& check) {
    const FaultSteps steps = ChooseFaultSteps(kUsualStride);
    int kills = 0;
    for (unsigned step = steps.start;; step += steps.stride) {
      SCOPED_TRACE(fmt::format("killed at step {}: {}", step, steps.Text()));
      const Outcome outcome = SaveKilledAt("kill", step, after);
      const bool image_is_there = TakeImage();
      if (outcome.status == 0) break;  // a save that has fewer steps
      ASSERT_EQ(outcome.status, kKilled) << outcome.err;
      ASSERT_NO_FATAL_FAILURE(check(outcome, image_is_there));
      ++kills;
    }
    EXPECT_GT(kills, 0);
    RecordProperty("kills", kills);
  }

  void ExpectGuestAsBefore() const {
    EXPECT_TRUE(std::filesystem::is_empty(sockets_.path()));
    EXPECT_EQ(guest_->Status(), "running");
    EXPECT_EQ(nlohmann::json::diff(settings_, MigrationSettingsOf(*guest_)), nlohmann::json::array());
  }

  // An image that has its name is whole, and nothing else is there.
  bool TakeImage() const {
    const bool is_there = std::filesystem::exists(ImagePath());
    if (is_there) {
      EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    }
    std::filesystem::remove(ImagePath());
    EXPECT_TRUE(FilesBesideImage().empty());
    return is_there;
  }

  ScratchDirectory sockets_{std::filesystem::temp_directory_path()};  // names of sockets are short
  GuestShape shape_;
  std::unique_ptr<Guest> guest_;
  nlohmann::json settings_;

 private:
  void SetWhatNobodyElseWouldSet() const {
    const std::unique_ptr<QmpClient> qmp = guest_->Connect();
    qmp->Execute("migrate-set-parameters",
                 {{"max-bandwidth", 12345678}, {"downtime-limit", 456}, {"multifd-channels", 3}});
    qmp->Execute("migrate-set-capabilities", {{"capabilities", {{{"capability", "auto-converge"}, {"state", true}}}}});
  }
};

INSTANTIATE_TEST_SUITE_P(Ways, KilledSaveTest, testing::ValuesIn(WaysToSave(IsUsual)), NameOfWay);

TEST_P(KilledSaveTest, AtAnyStepLeavesAllOrNothing) {
  KillAtSteps("resume", [&](const Outcome& outcome, bool image_is_there) {
    ASSERT_NO_FATAL_FAILURE(ExpectGuestAsBefore());
    // Before the first step towards a save, and after its last, there is nothing to undo, and nothing is said.
    if (outcome.err.find("killed in the middle of a save") == std::string::npos) return;
    const bool says_complete = outcome.err.find("is complete, and vm1 runs on") != std::string::npos;
    EXPECT_EQ(says_complete, image_is_there) << outcome.err;
  });

  ExpectGuestAsBefore();
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(KilledSaveTest, BeforeTheImageHasItsNameLeavesTheGuestRunning) {
  const Outcome outcome = SaveKilledAt("killrename", 1, "quit");

  EXPECT_TRUE(Refused(outcome, kKilled, "no image was written, and vm1 runs on"));
  EXPECT_FALSE(TakeImage());
  ExpectGuestAsBefore();
  EXPECT_TRUE(GoesOn(*guest_));
}

// The guest is in the image then, and must not run beside it.
TEST_P(KilledSaveTest, OnceTheImageHasItsNameTheSaveIsFinished) {
  const Outcome outcome = SaveKilledAt("killrename", 2, "quit");

  EXPECT_TRUE(Refused(outcome, kKilled, "vm1.sav is complete, and QEMU ended"));
  EXPECT_TRUE(guest_->Processes().empty());
  Guest restored(files_, "restored", shape_);
  EXPECT_TRUE(Succeeded(Restore(restored)));
  restored.console().WaitForTicks(1);
  EXPECT_TRUE(GoesOn(restored, restored.console().FirstTick()));
}

// The guest is to stand still after its save, or did before it.
class KilledSaveOfPausedTest : public KilledSaveTest {};
INSTANTIATE_TEST_SUITE_P(Ways, KilledSaveOfPausedTest, testing::ValuesIn(WaysToSave(IsUsualOfNewQemu)), NameOfWay);

// Else it is in no image, and runs on.
TEST_P(KilledSaveOfPausedTest, PausesTheGuestOnlyBesideItsImage) {
  KillAtSteps("pause", [&](const Outcome&, bool image_is_there) {
    EXPECT_EQ(guest_->Status() != "running", image_is_there);
    if (image_is_there) guest_->Connect()->Execute("cont");
  });

  guest_->Connect()->Execute("cont");
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(KilledSaveOfPausedTest, LeavesAGuestPausedThatWasPausedBefore) {
  guest_->Connect()->Execute("stop");

  KillAtSteps("resume", [&](const Outcome&, bool) {
    const std::unique_ptr<QmpClient> qmp = guest_->Connect();
    EXPECT_NE(QueryStatus(*qmp), "running");
    if (QueryStatus(*qmp) == "postmigrate") qmp->Execute("cont");  // else QEMU takes no other save of it
    qmp->Execute("stop");
  });

  EXPECT_NE(guest_->Status(), "running");
  guest_->Connect()->Execute("cont");
  EXPECT_TRUE(GoesOn(*guest_));
}

class OneWayKilledTest : public KilledSaveTest {};
INSTANTIATE_TEST_SUITE_P(OneWay, OneWayKilledTest, testing::Values(AllWaysToSave().front()), NameOfWay);

// As a name may be: a path is bytes, and no text.
TEST_P(OneWayKilledTest, OfANameThatIsNoUtf8IsUndoneToo) {
  const std::string path = ImagePath("vm\xe9.sav");
  std::vector<std::string> command = Command("quit");
  command.back() = path;

  const Outcome before = RunToEndOfGuard(WithFault("killrename", 1, sockets_.path(), command), path);
  EXPECT_TRUE(FilesBesideImage().empty());
  ExpectGuestAsBefore();
  const Outcome after = RunToEndOfGuard(WithFault("killrename", 2, sockets_.path(), command), path);

  EXPECT_TRUE(Refused(before, kKilled, "no image was written, and vm1 runs on"));
  EXPECT_TRUE(Refused(after, kKilled, "is complete, and QEMU ended"));
  EXPECT_TRUE(guest_->Processes().empty());
}

TEST_P(OneWayKilledTest, OlderImageSurvivesUntilTheNewOneIsComplete) {
  ASSERT_TRUE(Succeeded(RunToEnd(Command("resume"))));
  const std::string older = ReadWholeFile(ImagePath());
  std::vector<std::string> command = Command("resume");
  command.emplace_back("--force");

  const FaultSteps steps = ChooseFaultSteps(kUsualStride);
  SCOPED_TRACE(steps.Text());
  for (unsigned step = steps.start; ReadWholeFile(ImagePath()) == older; step += steps.stride) {
    RunToEndOfGuard(WithFault("kill", step, sockets_.path(), command), ImagePath());
    ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()}))) << "step " << step;
    ASSERT_EQ(FilesBesideImage().size(), 1U) << "step " << step;
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

// What nobody can undo any more is left as README says, and what README says to type then works.
TEST_P(OneWayKilledTest, KilledWithItsGuardLeavesNothingThatIsWronglyTakenForAnImage) {
  const FaultSteps steps = ChooseFaultSteps(kUsualStride);
  for (unsigned step = steps.start;; step += steps.stride) {
    SCOPED_TRACE(fmt::format("killed at step {}: {}", step, steps.Text()));
    const Outcome outcome = SaveKilledAt("killboth", step, "resume");
    if (outcome.status == 0) break;  // a save that has fewer steps
    ASSERT_EQ(outcome.status, kKilled) << outcome.err;

    for (const std::string& name : FilesBesideImage()) {
      const Outcome look = RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath(name)});
      EXPECT_TRUE(look.status == 0 || (name != "vm1.sav" && look.status == 3)) << name << ": " << look.err;
      std::filesystem::remove(ImagePath(name));
    }
    const std::unique_ptr<QmpClient> qmp = guest_->Connect();
    qmp->Execute("migrate_cancel");
    qmp->Execute("cont");
  }

  EXPECT_TRUE(TakeImage());
  EXPECT_TRUE(GoesOn(*guest_));
}

// Who kills the guard takes nothing but the guard.
TEST_P(OneWayKilledTest, SaveWhoseGuardIsKilledGoesOnAndSaysSo) {
  const Outcome outcome = RunToEnd(WithFault("killguard", 3, sockets_.path(), Command("resume")));

  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("warning: its guard"), std::string::npos) << outcome.err;
  EXPECT_TRUE(TakeImage());
  ExpectGuestAsBefore();
}

TEST_P(OneWayKilledTest, IsUndoneWhereNobodyCanBeTold) {
  const FullPipe pipe(files_.Path("pipe"));
  for (const std::string& where :
       {std::string("2>&-"), std::string("<&- >&- 2>&-"), "2>" + pipe.path(), std::string("2>&1 | :")}) {
    SCOPED_TRACE(where);
    std::vector<std::string> command = WithFault("killrename", 1, sockets_.path(), Command("resume"));
    command.insert(command.end(), {"--io-engine", "sync"});  // says nothing of an engine that it cannot have
    command.insert(command.begin(), {"sh", "-c", "exec \"$@\" " + where, "sh"});

    RunToEndOfGuard(command, ImagePath());

    EXPECT_FALSE(TakeImage());
    ExpectGuestAsBefore();
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

}  // namespace
}  // namespace vmsave
