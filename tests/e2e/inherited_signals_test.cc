// What the programs are started with (a shell's, nohup's or a careless service's signals), and a terminal that stops
// them.
#include <signal.h>
#include <string.h>

#include <filesystem>
#include <map>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

std::vector<std::string> Ignoring(const std::string& signal, const std::vector<std::string>& command) {
  std::vector<std::string> whole{"env", "--ignore-signal=" + signal};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

class ImageProgramsTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Succeeded(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--image-version", "2", image_})));
  }

  // Of a QEMU that is a shell.
  std::vector<std::string> RestoreInto(const std::string& script, const std::vector<std::string>& options = {}) const {
    std::vector<std::string> command{VMRESTORE_PROGRAM};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {image_, "--", "sh", "-c", script});
    return command;
  }

  ScratchDirectory files_;
  const std::string image_ = files_.Path("vm1.sav");
};

class IgnoredChildrenTest : public ImageProgramsTest {};

// The kernel keeps no status of children then, and gives their numbers to others.
TEST_F(IgnoredChildrenTest, StatusOfAChildIsToldWhateverTheParentIgnores) {
  EXPECT_TRUE(Refused(RunToEnd(Ignoring("CHLD", RestoreInto("exit 3"))), 1, "it ended with status 3"));
}

TEST_F(IgnoredChildrenTest, SoundImageOfLzopIsSoundWhateverTheParentIgnores) {
  const std::string compressed = files_.Path("compressed.sav");
  EXPECT_TRUE(Succeeded(
      RunToEnd(Ignoring("CHLD", {VMIMAGE_PROGRAM, "convert", "--to", "2", "--compress", "lzop", image_, compressed}))));

  EXPECT_TRUE(Succeeded(RunToEnd(Ignoring("CHLD", {VMIMAGE_PROGRAM, "verify", compressed}))));
}

class SignalledSaveTest : public EndToEndTest {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    guest_ = std::make_unique<Guest>(files_, "guest", GuestShape{});
    guest_->Boot();
  }

  // Slow enough to be caught in the middle.
  std::vector<std::string> SlowSave() const {
    constexpr unsigned kMilliseconds = 3;  // for each of a thousand writes
    const std::vector<std::string> save = VmsaveCommand(
        *guest_, {"--image-version", "3", "--io-engine", "sync", "--parallel", "1", "--after", "resume", ImagePath()});
    return WithFault("slow", kMilliseconds, sockets_.path(), save);
  }

  void WaitForTheMiddle(ProgramRun& save) const {
    WaitUntil("the file", [&] { return save.Ended() || !FilesBesideImage().empty(); });
    ASSERT_FALSE(std::filesystem::exists(ImagePath()));
  }

  void ExpectSavedAndRunning(const Outcome& save) const {
    ASSERT_TRUE(Succeeded(save));
    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    EXPECT_TRUE(GoesOn(*guest_));
  }

  ScratchDirectory sockets_{std::filesystem::temp_directory_path()};  // names of sockets are short
  std::unique_ptr<Guest> guest_;
};

// By nohup, and by a shell for what it starts in the background.
class IgnoredSignalTest : public SignalledSaveTest, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Signals, IgnoredSignalTest, testing::Values("HUP", "INT", "QUIT", "TERM"),
                         [](const auto& shown) { return std::string(shown.param); });

TEST_P(IgnoredSignalTest, StaysIgnored) {
  const std::map<std::string, int> numbers{{"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"TERM", SIGTERM}};
  ProgramRun save(Ignoring(GetParam(), SlowSave()));
  WaitForTheMiddle(save);

  save.Signal(numbers.at(GetParam()));

  ExpectSavedAndRunning(save.Wait());
}

// What a terminal does on Ctrl-Z, or when a program in the background wants to read or write there.
class JobControlTest : public SignalledSaveTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Signals, JobControlTest, testing::Values(SIGTSTP, SIGTTIN, SIGTTOU),
                         [](const auto& shown) { return "SIG" + std::string(::sigabbrev_np(shown.param)); });

TEST_P(JobControlTest, DoesNotStopASave) {
  ProgramRun other({"sleep", "1000"}, ProcessGroup::kOwn);
  other.Signal(GetParam());
  WaitUntil("a program that stops", [&] { return IsStopped(other); });  // as it does in this group
  ProgramRun save(SlowSave(), ProcessGroup::kOwn);
  WaitForTheMiddle(save);

  save.Signal(GetParam());

  WaitUntil("the save", [&] { return save.Ended() || IsStopped(save); });
  ASSERT_TRUE(save.Ended());
  ExpectSavedAndRunning(save.Wait());
}

class JobControlOfRestoreTest : public ImageProgramsTest {
 protected:
  // Tells what signals it was started with, and stops vmrestore.
  const std::string told_ = files_.Path("told");
  const std::string script_ = "grep -e SigBlk -e SigIgn /proc/self/status > " + told_ + "; kill -TSTP $PPID; exit 3";
};

TEST_F(JobControlOfRestoreTest, DoesNotStopARestoreIntoAnotherSession) {
  ProgramRun restore(RestoreInto(script_, {"--detach"}), ProcessGroup::kOwn);

  WaitUntil("the restore", [&] { return restore.Ended() || IsStopped(restore); });

  ASSERT_TRUE(restore.Ended());
  EXPECT_TRUE(Refused(restore.Wait(), 1, "it ended with status 3"));
  EXPECT_EQ(ReadWholeFile(told_), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

// As the QEMU that shares its terminal.
TEST_F(JobControlOfRestoreTest, StopsARestoreTogetherWithItsQemu) {
  ProgramRun restore(RestoreInto(script_), ProcessGroup::kOwn);

  WaitUntil("the stop", [&] { return restore.Ended() || IsStopped(restore); });
  ASSERT_FALSE(restore.Ended());
  restore.Signal(SIGCONT);

  EXPECT_TRUE(Refused(restore.Wait(), 1, "it ended with status 3"));
  EXPECT_EQ(ReadWholeFile(told_), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

}  // namespace
}  // namespace vmsave
