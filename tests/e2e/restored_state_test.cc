// What state and memory a guest has after its restore.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

class RestoredStateTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    saved_ = std::make_unique<Guest>(files_, "saved", shape_);
    restored_ = std::make_unique<Guest>(files_, "restored", shape_);
    restored_->PrintTo(*saved_);
    saved_->Boot();
  }

  // vmrestore's own QMP socket is gone by then, so the guest needs one for the test.
  Outcome RestoreWithSocket(const std::vector<std::string>& options = {}) const {
    std::vector<std::string> arguments{"--detach"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    arguments.push_back(ImagePath());
    std::vector<std::string> command = VmrestoreCommand(*restored_, arguments);
    command.insert(command.end(), {"-qmp", "unix:" + restored_->qmp_path() + ",server=on,wait=off"});
    return RunToEnd(command);
  }

  void ExpectPausedThenGoesOn() const {
    EXPECT_EQ(restored_->Status(), "paused");
    EXPECT_TRUE(StandsStill(*restored_));
    restored_->Connect()->Execute("cont");
    EXPECT_TRUE(GoesOn(*restored_));
  }

  GuestShape shape_;
  std::unique_ptr<Guest> saved_;
  std::unique_ptr<Guest> restored_;
};

INSTANTIATE_TEST_SUITE_P(Both, RestoredStateTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(RestoredStateTest, GuestPausedBeforeTheSaveStaysPaused) {
  saved_->Connect()->Execute("stop");
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));

  ASSERT_TRUE(Succeeded(RestoreWithSocket()));

  ExpectPausedThenGoesOn();
}

TEST_P(RestoredStateTest, PausedGuestOfVersion2StaysPausedWhenStreamed) {
  saved_->Connect()->Execute("stop");
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "2"})));

  ASSERT_TRUE(Succeeded(RestoreWithSocket({"--via", "stream"})));

  ExpectPausedThenGoesOn();
}

TEST_P(RestoredStateTest, RecordedAsPausedStaysPaused) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--paused"})));

  ASSERT_TRUE(Succeeded(RestoreWithSocket()));

  ExpectPausedThenGoesOn();
}

TEST_P(RestoredStateTest, RecordedAsRunningRuns) {
  saved_->Connect()->Execute("stop");
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--running"})));

  ASSERT_TRUE(Succeeded(RestoreWithSocket()));

  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(RestoredStateTest, PausedOnRequestOfTheRestore) {
  ASSERT_TRUE(Succeeded(Save(*saved_)));

  ASSERT_TRUE(Succeeded(RestoreWithSocket({"--paused"})));

  ExpectPausedThenGoesOn();
}

TEST_P(RestoredStateTest, ResumedOnRequestOfTheRestore) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--paused"})));

  ASSERT_TRUE(Succeeded(RestoreWithSocket({"--running"})));

  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(RestoredStateTest, RestoredGuestCanBeSavedAgain) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));
  ASSERT_TRUE(Succeeded(RestoreWithSocket()));
  ASSERT_TRUE(GoesOn(*restored_));
  ASSERT_TRUE(Succeeded(Save(*restored_, {"--image-version", "3", "--force"})));
  Guest again(files_, "again", shape_);
  again.PrintTo(*saved_);

  ASSERT_TRUE(Succeeded(Restore(again)));

  EXPECT_TRUE(GoesOn(again));
}

class RestoredMemoryTest : public RestoredStateTest {
 protected:
  // What a mem-path file of another guest would hold.
  void FillWithOtherThings(const std::string& path) const {
    const std::string junk(1 << 20, '\xa5');
    std::string all;
    for (unsigned mib = 0; mib < shape_.memory_kib >> 10; ++mib) all += junk;
    WriteWholeFile(path, all);
  }

  void ExpectExactlyTheSavedMemory(const std::string& version, const std::string& way) {
    ASSERT_TRUE(Succeeded(Save(*saved_, {"--after", "pause", "--image-version", version})));
    const std::string memory = ReadWholeFile(saved_->ram_path());
    FillWithOtherThings(restored_->ram_path());

    ASSERT_TRUE(Succeeded(RestoreWithSocket({"--via", way, "--paused"})));

    EXPECT_TRUE(ReadWholeFile(restored_->ram_path()) == memory);
    restored_->Connect()->Execute("cont");
    EXPECT_TRUE(GoesOn(*restored_));
  }
};

INSTANTIATE_TEST_SUITE_P(Both, RestoredMemoryTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

// The command that the guest was started with names the memory that it may still run in.
TEST_P(RestoredMemoryTest, MemoryOfAGuestThatStillRunsIsNotTouched) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3", "--after", "resume"})));

  std::vector<std::string> command = VmrestoreCommand(*restored_, {ImagePath()});
  for (std::string& argument : command) {
    const std::size_t at = argument.find(restored_->ram_path());
    if (at != std::string::npos) argument.replace(at, restored_->ram_path().size(), saved_->ram_path());
  }
  for (const std::string via : {"auto", "memory", "multifd", "stream"}) {
    SCOPED_TRACE(via);
    std::vector<std::string> restore = command;
    restore.insert(restore.begin() + 1, {"--via", via});
    EXPECT_TRUE(Refused(RunToEnd(restore), 1, "end the guest that still runs there"));
  }

  EXPECT_TRUE(GoesOn(*saved_));
}

// QEMU reads the pages that an image has and leaves the others as they are: in a file that is not empty, wrong.
TEST_P(RestoredMemoryTest, FileThatHeldOtherThingsIsNotLeftToQemu) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));
  FillWithOtherThings(restored_->ram_path());

  EXPECT_TRUE(Refused(Restore(*restored_, {"--via", "native"}), 1, "--via native does not work here"));

  std::vector<std::string> command = VmrestoreCommand(*restored_, {"--detach", "--parallel", "2", ImagePath()});
  for (std::string& argument : command) {
    if (const std::size_t at = argument.find("share=on"); at != std::string::npos) argument.replace(at, 8, "share=off");
  }
  const Outcome outcome = RunToEnd(command);
  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("via multifd"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(RestoredMemoryTest, Version3ReplacesAllThatTheFileHeldBefore) {
  ExpectExactlyTheSavedMemory("3", "memory");
}

TEST_P(RestoredMemoryTest, Version3ReplacesItOverParallelChannelsToo) {
  ExpectExactlyTheSavedMemory("3", "multifd");
}

TEST_P(RestoredMemoryTest, Version2ReplacesAllThatTheFileHeldBefore) {
  ExpectExactlyTheSavedMemory("2", "memory");
}

TEST_P(RestoredMemoryTest, Version2ReplacesItOverParallelChannelsToo) {
  ExpectExactlyTheSavedMemory("2", "multifd");
}

TEST_P(RestoredMemoryTest, AbsentPagesBecomeHolesAgain) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));
  FillWithOtherThings(restored_->ram_path());
  // What was not written back yet keeps its place on disk, whatever is punched into it.
  ASSERT_EQ(::fsync(OpenFile(restored_->ram_path(), O_RDONLY).number()), 0);

  ASSERT_TRUE(Succeeded(RestoreWithSocket({"--via", "memory", "--paused"})));

  struct stat status {};
  ASSERT_EQ(::stat(restored_->ram_path().c_str(), &status), 0);
  const auto blocks_of_60_percent = static_cast<long>(shape_.memory_kib) * 2 * 6 / 10;  // of 512 bytes each
  EXPECT_LT(status.st_blocks, blocks_of_60_percent);
}

}  // namespace
}  // namespace vmsave
