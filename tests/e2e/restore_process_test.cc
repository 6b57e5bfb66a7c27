// How vmrestore treats the QEMU that it restores into: one that it starts, or one that waits already.
#include <fcntl.h>
#include <signal.h>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

class RestoreProcessTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    saved_ = std::make_unique<Guest>(files_, "saved", shape_);
    restored_ = std::make_unique<Guest>(files_, "restored", shape_);
    restored_->PrintTo(*saved_);
    saved_->Boot();
    ASSERT_TRUE(Succeeded(Save(*saved_, SaveOptions())));
  }

  virtual std::vector<std::string> SaveOptions() const { return {"--image-version", "3"}; }

  // Of a restore that stays as long as QEMU does; with a QMP socket for the test.
  std::vector<std::string> StayingCommand(const std::vector<std::string>& options = {}) const {
    std::vector<std::string> arguments = options;
    arguments.push_back(ImagePath());
    std::vector<std::string> command = VmrestoreCommand(*restored_, arguments);
    command.insert(command.end(), {"-qmp", "unix:" + restored_->qmp_path() + ",server=on,wait=off"});
    return command;
  }

  GuestShape shape_;
  std::unique_ptr<Guest> saved_;
  std::unique_ptr<Guest> restored_;
};

INSTANTIATE_TEST_SUITE_P(Both, RestoreProcessTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(RestoreProcessTest, QemuThatWaitsAlreadyIsGivenTheGuest) {
  restored_->Start({"-incoming", "defer"});

  const Outcome restore = RunToEnd({VMRESTORE_PROGRAM, "--qmp", restored_->qmp_path(), ImagePath()});

  ASSERT_TRUE(Succeeded(restore));
  EXPECT_TRUE(GoesOn(*restored_));
}

class PausedRestoreTest : public RestoreProcessTest {
 protected:
  // In the stream of a live save the guest runs.
  std::vector<std::string> SaveOptions() const override { return {"--live", "--image-version", "3"}; }

  // QEMU says RESUME when it starts a guest, however short it then runs.
  void ExpectNeverStarted(const std::string& way) {
    Guest waiting(files_, "waiting-" + way, shape_);
    waiting.PrintToCopyOf(*saved_);
    const std::string observer_path = files_.Path("observer-" + way);
    waiting.Start({"-incoming", "defer", "-qmp", "unix:" + observer_path + ",server=on,wait=off"});
    const Interrupt never;
    QmpClient observer(observer_path, never, kPatience);
    const unsigned last_tick = waiting.console().LastTick();

    const Outcome restore =
        RunToEnd({VMRESTORE_PROGRAM, "--paused", "--via", way, "--qmp", waiting.qmp_path(), ImagePath()});

    ASSERT_TRUE(Succeeded(restore)) << way;
    observer.Execute("query-status");  // what it told before has come then
    for (const nlohmann::json& event : observer.TakeEvents()) EXPECT_NE(event.at("event"), "RESUME") << way;
    EXPECT_TRUE(StandsStill(waiting)) << way;
    EXPECT_EQ(waiting.console().LastTick(), last_tick) << way;
    observer.Execute("cont");
    EXPECT_TRUE(GoesOn(waiting)) << way;
  }
};

INSTANTIATE_TEST_SUITE_P(Both, PausedRestoreTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

// Without -S it would start a guest that ran when it was saved as soon as it has it.
TEST_P(PausedRestoreTest, QemuThatWaitsAlreadyDoesNotStartTheGuestByItself) {
  for (const std::string way : {"memory", "multifd", "stream"}) ExpectNeverStarted(way);
  if (GetParam() == WhichQemu::kNew) ExpectNeverStarted("native");
}

TEST_P(RestoreProcessTest, QemuThatRunsAGuestIsLeftAlone) {
  shape_.ram = Ram::kMemfd;
  Guest other(files_, "other", shape_);
  other.Boot();

  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, "--qmp", other.qmp_path(), ImagePath()}), 1, "-incoming defer"));

  EXPECT_TRUE(GoesOn(other));
}

TEST_P(RestoreProcessTest, StaysUntilQemuEndsAndPassesOnItsStatus) {
  ProgramRun restore(StayingCommand());
  WaitUntil("the restore", [&] { return restore.Ended() || restore.err().find("restored vm1") != std::string::npos; });
  ASSERT_TRUE(GoesOn(*restored_)) << restore.err();
  EXPECT_FALSE(restore.Ended());

  restored_->Connect()->Execute("quit");

  EXPECT_EQ(restore.Wait().status, 0);
}

TEST_P(RestoreProcessTest, PassesOnTheSignalThatEndedQemu) {
  ProgramRun restore(StayingCommand());
  WaitUntil("the restore", [&] { return restore.Ended() || restore.err().find("restored vm1") != std::string::npos; });
  ASSERT_EQ(restored_->Processes().size(), 1U) << restore.err();

  ::kill(restored_->Processes().front(), SIGKILL);

  EXPECT_EQ(restore.Wait().status, 128 + SIGKILL);
}

TEST_P(RestoreProcessTest, PassesOnTerminationToQemu) {
  ProgramRun restore(StayingCommand());
  WaitUntil("the restore", [&] { return restore.Ended() || restore.err().find("restored vm1") != std::string::npos; });

  restore.Signal(SIGTERM);

  EXPECT_EQ(restore.Wait().status, 0);
  EXPECT_TRUE(restored_->Processes().empty());
}

// QEMU gets the terminal's hang-up as well, and may have been told to heed it.
TEST_P(RestoreProcessTest, HangUpThatItWasStartedToIgnoreIsNotPassedOn) {
  std::vector<std::string> command = StayingCommand();
  command.insert(command.begin(), {"env", "--ignore-signal=HUP"});
  ProgramRun restore(command);
  WaitUntil("the restore", [&] { return restore.Ended() || restore.err().find("restored vm1") != std::string::npos; });

  restore.Signal(SIGHUP);
  EXPECT_TRUE(GoesOn(*restored_));
  EXPECT_FALSE(restore.Ended());

  restored_->Connect()->Execute("quit");
  EXPECT_EQ(restore.Wait().status, 0);
}

// Ctrl-C reaches QEMU too, which shares the terminal; a signal to vmrestore alone says nothing to the guest.
TEST_P(RestoreProcessTest, InterruptOfItselfAloneEndsNothing) {
  ProgramRun restore(StayingCommand());
  WaitUntil("the restore", [&] { return restore.Ended() || restore.err().find("restored vm1") != std::string::npos; });

  restore.Signal(SIGINT);
  EXPECT_TRUE(GoesOn(*restored_));
  EXPECT_FALSE(restore.Ended());

  restored_->Connect()->Execute("quit");
  EXPECT_EQ(restore.Wait().status, 0);
}

TEST_P(RestoreProcessTest, DetachedQemuStays) {
  ASSERT_TRUE(Succeeded(Restore(*restored_)));

  EXPECT_EQ(restored_->Processes().size(), 1U);
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(RestoreProcessTest, QemuThatDaemonizesItselfStays) {
  std::vector<std::string> command = VmrestoreCommand(*restored_, {ImagePath()});
  command.emplace_back("-daemonize");

  ASSERT_TRUE(Succeeded(RunToEnd(command)));

  EXPECT_EQ(restored_->Processes().size(), 1U);
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(RestoreProcessTest, DaemonizedQemuIsEndedWhenTheRestoreFails) {
  std::string image = ReadWholeFile(ImagePath());
  const std::size_t last_page = image.rfind("vmsave test guest");  // of the kernel, in the guest's memory
  ASSERT_NE(last_page, std::string::npos);
  image[last_page] = 'V';
  WriteWholeFile(ImagePath(), image);
  std::vector<std::string> command = VmrestoreCommand(*restored_, {"--via", "memory", ImagePath()});
  command.emplace_back("-daemonize");

  EXPECT_TRUE(Refused(RunToEnd(command), 3, "checksum"));

  EXPECT_TRUE(restored_->Processes().empty());
}

TEST_P(RestoreProcessTest, QemuThatDoesNotStartIsAnError) {
  std::vector<std::string> command = VmrestoreCommand(*restored_, {ImagePath()});
  command.insert(command.end(), {"-device", "no-such-device"});

  EXPECT_TRUE(Refused(RunToEnd(command), 1, "cannot start"));

  EXPECT_TRUE(restored_->Processes().empty());
}

TEST_P(RestoreProcessTest, ProgramThatIsNotThereIsAnError) {
  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, ImagePath(), "--", "/nowhere/qemu-system-x86_64"}), 1,
                      "/nowhere/qemu-system-x86_64"));
}

TEST_P(RestoreProcessTest, ImageIsNotChanged) {
  const std::string before = ReadWholeFile(ImagePath());

  ASSERT_TRUE(Succeeded(Restore(*restored_)));
  ASSERT_TRUE(GoesOn(*restored_));

  EXPECT_TRUE(ReadWholeFile(ImagePath()) == before);
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
}

class DescriptorSetTest : public EndToEndTest {};

TEST_F(DescriptorSetTest, OfAnotherIsNeitherUsedNorRemoved) {
  GuestShape shape;
  shape.ram = Ram::kPrivate;
  Guest saved(files_, "saved", shape);
  Guest waiting(files_, "waiting", shape);
  waiting.PrintTo(saved);
  saved.Boot();
  ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "3"})));
  waiting.Start({"-incoming", "defer"});
  const FileDescriptor another = OpenFile("/dev/null", O_RDONLY);
  waiting.Connect()->Execute("add-fd", {{"fdset-id", 1000}}, another.number());

  const Outcome restore =
      RunToEnd({VMRESTORE_PROGRAM, "--via", "native", "--paused", "--qmp", waiting.qmp_path(), ImagePath()});

  ASSERT_TRUE(Succeeded(restore));
  const nlohmann::json sets = waiting.Connect()->Execute("query-fdsets");
  ASSERT_EQ(sets.size(), 1U) << sets;
  EXPECT_EQ(sets.at(0).at("fdset-id"), 1000);
  EXPECT_EQ(sets.at(0).at("fds").size(), 1U) << sets;
}

}  // namespace
}  // namespace vmsave
