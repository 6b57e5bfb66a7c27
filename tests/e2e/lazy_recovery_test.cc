// vmrestore is killed while it serves a guest that runs already: nothing is lost.
#include <fmt/format.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>

#include "reader/image.h"
#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

int Moments() {
  const char* text = std::getenv("VMSAVE_MOMENTS");
  return text == nullptr ? 2 : std::atoi(text);
}

// The guard of a program is its only child besides QEMU, and has its command line.
pid_t GuardOf(pid_t program) {
  std::ifstream file(fmt::format("/proc/{0}/task/{0}/children", program));
  for (pid_t child = 0; file >> child;) {
    std::ifstream name(fmt::format("/proc/{}/comm", child));
    std::string text;
    if (std::getline(name, text) && text == "restore-guard") return child;
  }
  return 0;
}

class LazyRecoveryTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    shape_.ram = Ram::kPrivate;
    shape_.options = "fill=80 seed=7 tick=20 passes=4 dirty=40 rezero=20";
    saved_ = std::make_unique<Guest>(files_, "saved", shape_);
    saved_->Boot();
    ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));
    saved_->Kill();
  }

  // A QEMU that waits for the guest, whose log goes on in a copy of the saved one's.
  std::unique_ptr<Guest> NewWaiting(std::vector<std::string> options = {}) {
    auto guest = std::make_unique<Guest>(files_, fmt::format("restored{}", ++guests_), shape_);
    guest->PrintToCopyOf(*saved_);
    options.insert(options.end(), {"-incoming", "defer"});
    guest->Start(options);
    return guest;
  }

  std::vector<std::string> LazyCommand(const Guest& guest, const std::vector<std::string>& options) const {
    std::vector<std::string> command{VMRESTORE_PROGRAM, "--lazy", "--qmp", guest.qmp_path()};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(ImagePath());
    return command;
  }

  Outcome Recover(const Guest& guest, const std::string& image) const {
    return RunToEnd({VMRESTORE_PROGRAM, "--recover", "--qmp", guest.qmp_path(), image});
  }

  // Whose main thread does not wait for a page: nobody can reach it without what the guard held.
  static bool AnswersQmp(const Guest& guest) {
    const Interrupt never;
    try {
      QmpClient qmp(guest.qmp_path(), never);
      qmp.SetTimeout(std::chrono::seconds(5));
      qmp.Execute("query-status");
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  static void AwaitStart(ProgramRun& restore) {
    WaitUntil("the guest's start", [&] {
      if (restore.Ended()) throw std::runtime_error("vmrestore ended: " + restore.err());
      return restore.err().find("its memory comes behind it") != std::string::npos;
    });
  }

  // Its QEMU was given a part and has ended, which is a loss where the guest had run.
  bool HadNotBegun(const Guest& guest) const {
    if (!guest.Processes().empty()) return false;
    EXPECT_EQ(guest.console().LastTick(), saved_->console().LastTick()) << "the guest ran, and is lost";
    return true;
  }

  static void AskTwiceToEnd(ProgramRun& restore, int signal) {
    for (int i = 0; i < 2; ++i) {
      restore.Signal(signal);
      WaitUntil("an answer", [&] { return restore.Ended() || restore.err().find("served on") != std::string::npos; });
    }
  }

  static void ExpectNoCapabilities(const Guest& guest) {
    for (const auto& entry : MigrationSettingsOf(guest).at("capabilities")) EXPECT_EQ(entry.at("state"), false);
  }

  void KillWithGuard(ProgramRun& restore) const {
    const pid_t guard = GuardOf(restore.pid());
    ASSERT_GT(guard, 0);
    ::kill(guard, SIGKILL);
    restore.Signal(SIGKILL);
    WaitForGuardToo(restore, ImagePath());
  }

  GuestShape shape_;
  std::unique_ptr<Guest> saved_;
  std::mt19937_64 random_{std::random_device()()};
  int guests_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Both, LazyRecoveryTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(LazyRecoveryTest, GuardServesOnWhereItsProgramWasKilled) {
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "20M"}));
  AwaitStart(restore);
  restore.Signal(SIGKILL);
  const Outcome outcome = WaitForGuardToo(restore, ImagePath());
  const std::size_t begun = outcome.err.find("serves the guest on from " + ImagePath());
  const std::size_t done = outcome.err.find("has all of its memory now");
  EXPECT_LT(begun, done) << outcome.err;
  EXPECT_NE(done, std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*guest));
}

TEST_P(LazyRecoveryTest, LossOfTheGuardIsToldWhileTheGuestIsServed) {
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill", "off"}));
  AwaitStart(restore);
  ::kill(GuardOf(restore.pid()), SIGKILL);
  WaitUntil("a warning",
            [&] { return restore.err().find("vmrestore: warning: its guard process was ended") != std::string::npos; });
  EXPECT_TRUE(GoesOn(*guest));
}

TEST_P(LazyRecoveryTest, OperatorGoesOnWhereTheGuardIsDeadToo) {
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "2M"}));
  AwaitStart(restore);
  ASSERT_NO_FATAL_FAILURE(KillWithGuard(restore));
  if (!AnswersQmp(*guest)) GTEST_SKIP() << "QEMU itself waits for a page this time";

  EXPECT_TRUE(Succeeded(Recover(*guest, ImagePath())));
  EXPECT_TRUE(GoesOn(*guest));
  ExpectNoCapabilities(*guest);
}

// Whether or not QEMU itself waits for a page by then: the guard keeps the connection over which it can be reached.
TEST_P(LazyRecoveryTest, OperatorGoesOnWhereTheGuardCannot) {
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "2M"}));
  AwaitStart(restore);
  const std::string elsewhere = ImagePath("moved.sav");
  std::filesystem::rename(ImagePath(), elsewhere);
  restore.Signal(SIGKILL);
  WaitUntil("the guard's word",
            [&] { return restore.err().find("the guest stands still: cannot open") != std::string::npos; });

  EXPECT_TRUE(Succeeded(Recover(*guest, elsewhere)));
  EXPECT_TRUE(GoesOn(*guest));
  ExpectNoCapabilities(*guest);
}

TEST_P(LazyRecoveryTest, RecoveryThatIsInterruptedIsRecovered) {
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "2M"}));
  AwaitStart(restore);
  AskTwiceToEnd(restore, SIGINT);
  EXPECT_TRUE(Refused(restore.Wait(), 130, "interrupted by the operator"));
  ProgramRun recovery({VMRESTORE_PROGRAM, "--recover", "--fill-rate", "2M", "--qmp", guest->qmp_path(), ImagePath()});
  AwaitStart(recovery);
  recovery.Signal(SIGKILL);

  const Outcome outcome = WaitForGuardToo(recovery, ImagePath());
  EXPECT_NE(outcome.err.find("has all of its memory now"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*guest));
}

// Some of the reads come before there is a guest to lose.
TEST_P(LazyRecoveryTest, ReadThatFailsLosesNoGuest) {
  const ScratchDirectory sockets{std::filesystem::temp_directory_path()};  // names of sockets are short
  int recovered = 0;
  const FaultSteps reads = ChooseFaultSteps(97);
  for (unsigned number = reads.start;; number += reads.stride) {
    SCOPED_TRACE(fmt::format("read {}: {}", number, reads.Text()));
    const auto guest = NewWaiting();
    const Outcome outcome =
        RunToEnd(WithFault("eioread", number, sockets.path(), LazyCommand(*guest, {"--io-engine", "sync"})));
    if (outcome.status == 0) break;  // there are fewer reads
    ASSERT_TRUE(Refused(outcome, 1, "Input/output error"));
    if (outcome.err.find("vmrestore --recover") == std::string::npos) continue;
    ASSERT_TRUE(
        Succeeded(RunToEnd({VMRESTORE_PROGRAM, "--recover", "--running", "--qmp", guest->qmp_path(), ImagePath()})));
    ASSERT_TRUE(GoesOn(*guest));
    ++recovered;
  }
  EXPECT_GT(recovered, 0);
}

TEST_P(LazyRecoveryTest, SlowDiskDelaysTheGuestAndNothingElse) {
  const ScratchDirectory sockets{std::filesystem::temp_directory_path()};
  const auto guest = NewWaiting();
  ProgramRun restore(WithFault("slowread", /*milliseconds=*/50, sockets.path(),
                               LazyCommand(*guest, {"--io-engine", "sync", "--parallel", "1"})));
  AwaitStart(restore);
  EXPECT_TRUE(GoesOn(*guest));
  EXPECT_TRUE(Succeeded(restore.Wait()));
}

TEST_P(LazyRecoveryTest, ImageOfAnotherSaveIsRefused) {
  Guest other(files_, "other", shape_);
  other.Boot();
  ASSERT_TRUE(Succeeded(RunToEnd(VmsaveCommand(other, {"--image-version", "3", ImagePath("other.sav")}))));
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "2M"}));
  AwaitStart(restore);
  AskTwiceToEnd(restore, SIGTERM);
  restore.Wait();

  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(Refused(Recover(*guest, ImagePath("other.sav")), 1, "begun from another save"));
  }
  EXPECT_TRUE(Succeeded(Recover(*guest, ImagePath())));
  EXPECT_TRUE(GoesOn(*guest));
}

TEST_P(LazyRecoveryTest, GuardServesNoOtherSaveThatHasTheImagesNameByThen) {
  Guest other(files_, "other", shape_);
  other.Boot();
  ASSERT_TRUE(Succeeded(RunToEnd(VmsaveCommand(other, {"--image-version", "3", ImagePath("other.sav")}))));
  const auto guest = NewWaiting();
  ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "2M"}));
  AwaitStart(restore);
  std::filesystem::rename(ImagePath(), ImagePath("first.sav"));
  std::filesystem::rename(ImagePath("other.sav"), ImagePath());

  restore.Signal(SIGKILL);

  WaitUntil("the guard's word", [&] { return restore.err().find("begun from another save") != std::string::npos; });
  EXPECT_TRUE(Succeeded(Recover(*guest, ImagePath("first.sav"))));
  EXPECT_TRUE(GoesOn(*guest));
}

// As where a device touches memory that is not there yet: QEMU's main thread answers nothing until it has it.
class WaitingQemuTest : public LazyRecoveryTest {
 protected:
  void SetUp() override {
    LazyRecoveryTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    guest_ = NewWaiting({"-qmp", "unix:" + second_qmp_ + ",server=on,wait=off"});
    restore_ = std::make_unique<ProgramRun>(LazyCommand(*guest_, {"--fill-rate", "8M"}));
    AwaitStart(*restore_);
    second_ =
        std::make_unique<QmpClient>(second_qmp_, never_);  // QEMU may wait for a page already once nobody serves it
    restore_->Signal(SIGSTOP);
    second_->SetTimeout(std::chrono::seconds(1));
    try {
      second_->Execute("pmemsave", {{"val", 0}, {"size", shape_.memory_kib * 1024}, {"filename", files_.Path("all")}});
    } catch (const Error& error) {
      ASSERT_NE(std::string(error.what()).find("no answer within"), std::string::npos) << error.what();
      return;
    }
    FAIL() << "all of its memory is there already";
  }

  const Interrupt never_;
  const ScratchDirectory sockets_{std::filesystem::temp_directory_path()};  // names of sockets are short
  const std::string second_qmp_ = sockets_.Path("second");
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<ProgramRun> restore_;
  std::unique_ptr<QmpClient> second_;
};

INSTANTIATE_TEST_SUITE_P(Both, WaitingQemuTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(WaitingQemuTest, IsServedOnByTheGuard) {
  restore_->Signal(SIGKILL);

  const Outcome outcome = WaitForGuardToo(*restore_, ImagePath());

  EXPECT_NE(outcome.err.find("has all of its memory now"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(WaitingQemuTest, IsServedOnByTheOperatorFromTheSoundOneOfTwoCopies) {
  const std::string damaged = ImagePath("damaged.sav");
  std::filesystem::copy_file(ImagePath(), damaged);
  {
    const Image image(damaged);
    const StreamBlock& block = image.contents().blocks.front();
    std::fstream file(damaged, std::ios::in | std::ios::out | std::ios::binary);
    for (std::uint64_t page = 0; page < block.present.pages(); page += 16) {
      file.seekp(static_cast<std::streamoff>(block.mapped_ram->pages_offset.value() + page * kPageBytes));
      file << "damage";
    }
  }
  const std::string sound = ImagePath("sound.sav");
  std::filesystem::rename(ImagePath(), sound);
  restore_->Signal(SIGKILL);
  WaitUntil("the guard's word",
            [&] { return restore_->err().find("the guest stands still: cannot open") != std::string::npos; });

  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Refused(Recover(*guest_, damaged), 3, "wrong checksum"));
  EXPECT_TRUE(Succeeded(Recover(*guest_, sound)));
  guest_->Connect()->Execute("cont");  // it may have been paused with the damage
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(LazyRecoveryTest, GuestThatNeedsNoRecoveryIsRefused) {
  const auto guest = NewWaiting();
  EXPECT_TRUE(Refused(Recover(*guest, ImagePath()), 1, "it waits for no memory (status none)"));
  ASSERT_TRUE(Succeeded(RunToEnd(LazyCommand(*guest, {}))));
  EXPECT_TRUE(Refused(Recover(*guest, ImagePath()), 1, "it has all of its memory"));
  EXPECT_TRUE(GoesOn(*guest));
}

// Either the guest had not begun to run, and its QEMU has ended with the image as it was; or it goes on. But where the
// guard was killed too, QEMU may wait for a page itself, out of everybody's reach.
TEST_P(LazyRecoveryTest, KillAtAnyMomentLosesNoGuest) {
  int served = 0;
  int by_operator = 0;
  int out_of_reach = 0;
  for (int i = 0; i < Moments(); ++i) {
    const auto guest = NewWaiting();
    ProgramRun restore(LazyCommand(*guest, {"--fill-rate", "60M"}));
    const auto moment = std::chrono::milliseconds(std::uniform_int_distribution<int>(0, 1200)(random_));
    const bool guard_too = i % 4 == 0;
    if (i % 4 != 3) AwaitStart(restore);
    SCOPED_TRACE(fmt::format("after {}{}", moment.count(), guard_too ? ", with its guard" : ""));
    std::this_thread::sleep_for(moment);
    if (const pid_t guard = GuardOf(restore.pid()); guard_too && guard > 0) ::kill(guard, SIGKILL);
    restore.Signal(SIGKILL);
    const Outcome outcome = WaitForGuardToo(restore, ImagePath());
    if (HadNotBegun(*guest)) continue;
    if (guard_too && !AnswersQmp(*guest)) {
      ++out_of_reach;
      continue;
    }
    WaitUntil("QEMU's notice", [&] {
      if (guest->Processes().empty()) return true;
      const std::string status = guest->Connect()->Execute("query-migrate").value("status", "none");
      return status != "postcopy-active" && status != "active" && status != "setup";
    });
    if (HadNotBegun(*guest)) continue;
    const std::string status = guest->Connect()->Execute("query-migrate").value("status", "none");
    if (status == "none") continue;  // it waits as before
    if (status == "postcopy-paused") {
      const Outcome recovery =
          RunToEnd({VMRESTORE_PROGRAM, "--recover", "--running", "--qmp", guest->qmp_path(), ImagePath()});
      ASSERT_TRUE(Succeeded(recovery)) << outcome.err;
      ++by_operator;
    } else {
      guest->Connect()->Execute("cont");  // where it had all of its memory before it was told to run
    }
    ++served;
    ASSERT_TRUE(GoesOn(*guest)) << outcome.err;
  }
  EXPECT_GT(served, 0);
  RecordProperty("served", served);
  RecordProperty("by_operator", by_operator);
  RecordProperty("out_of_reach", out_of_reach);
}

}  // namespace
}  // namespace vmsave
