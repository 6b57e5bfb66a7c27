// Signals and deaths in the middle of the work: nothing is left behind, and the guest is as it was.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr int kTries = 10;  // a save may be over before it is caught in the middle

// Large enough to be caught in the middle.
GuestShape LargeShape(WhichQemu qemu) {
  GuestShape shape;
  shape.qemu = qemu;
  shape.memory_kib = 160 << 10;
  shape.options = "fill=90 seed=7 tick=20 passes=4";
  return shape;
}

std::uint64_t BytesOnDisk(const std::filesystem::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

class InterruptedSaveTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_ = LargeShape(GetParam());
    guest_ = std::make_unique<Guest>(files_, "guest", shape_);
    guest_->Boot();
  }

  std::uint64_t BytesWritten() const {
    std::uint64_t bytes = 0;
    for (const std::string& name : FilesBesideImage()) bytes += BytesOnDisk(ImagePath(name));
    return bytes;
  }

  // Starts a save and returns it when so much of it is on its way to the disk; nothing where it was over before.
  std::unique_ptr<ProgramRun> SaveInTheMiddle(std::uint64_t bytes, const std::string& version) const {
    const std::vector<std::string> arguments{"--image-version", version,  "--parallel", "1",
                                             "--after",         "resume", ImagePath()};
    for (int i = 0; i < kTries; ++i) {
      std::filesystem::remove(ImagePath());
      auto save = std::make_unique<ProgramRun>(VmsaveCommand(*guest_, arguments));
      WaitUntil("bytes of the image", [&] { return save->Ended() || BytesWritten() > bytes; });
      if (!std::filesystem::exists(ImagePath())) return save;
      save->Wait();
    }
    throw std::runtime_error("no save took long enough to be caught in the middle");
  }

  void ExpectUndone(int signal, std::uint64_t bytes, const std::string& version) const {
    const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(bytes, version);
    save->Signal(signal);
    const Outcome outcome = save->Wait();
    EXPECT_TRUE(Refused(outcome, 130, "interrupted"));
    EXPECT_TRUE(FilesBesideImage().empty());
    EXPECT_EQ(guest_->Status(), "running");
    guest_->console().WaitForTicks(2);
    EXPECT_EQ(guest_->console().FirstFlaw(), "");
  }

  GuestShape shape_;
  std::unique_ptr<Guest> guest_;
};

INSTANTIATE_TEST_SUITE_P(Both, InterruptedSaveTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(InterruptedSaveTest, CtrlCUndoesTheSave) {
  for (const std::uint64_t mebibytes : {0, 1, 20, 60}) ExpectUndone(SIGINT, mebibytes * kMiB, "3");

  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(InterruptedSaveTest, CtrlCUndoesASaveOfVersion2) {
  for (const std::uint64_t mebibytes : {0, 1, 20, 60}) ExpectUndone(SIGINT, mebibytes * kMiB, "2");

  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(InterruptedSaveTest, TerminationUndoesTheSave) {
  ExpectUndone(SIGTERM, 20 * kMiB, "3");
  ExpectUndone(SIGHUP, 20 * kMiB, "2");

  EXPECT_TRUE(GoesOn(*guest_));
}

// At whatever moment it comes, also before and after the pages: either all is undone, or the image is complete.
TEST_P(InterruptedSaveTest, SignalAtAnyMomentLeavesAllOrNothing) {
  const nlohmann::json settings = MigrationSettingsOf(*guest_);
  for (int milliseconds = 1; milliseconds < 100; milliseconds += milliseconds < 40 ? 1 : 20) {
    SCOPED_TRACE(fmt::format("signal after {} ms", milliseconds));
    ProgramRun save(VmsaveCommand(*guest_, {"--image-version", "3", "--after", "resume", ImagePath()}));
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    save.Signal(SIGINT);

    ExpectWholeOrInterrupted(save.Wait());
    EXPECT_TRUE(FilesBesideImage().empty());
    ASSERT_EQ(guest_->Status(), "running");
    ASSERT_EQ(nlohmann::json::diff(settings, MigrationSettingsOf(*guest_)), nlohmann::json::array());
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

// Signals whose default is to end a program, and so to leave a guest standing.
TEST_P(InterruptedSaveTest, LimitOnFileSizesIsAnErrorAndUndone) {
  std::vector<std::string> command{"sh", "-c", "ulimit -f 20000; exec \"$@\"", "sh"};
  const std::vector<std::string> save = VmsaveCommand(*guest_, {"--image-version", "3", ImagePath()});
  command.insert(command.end(), save.begin(), save.end());

  EXPECT_TRUE(Refused(RunToEnd(command), 1, "File too large"));

  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(InterruptedSaveTest, ReaderOfTheProgressMayGo) {
  std::vector<std::string> command{"sh", "-c", "\"$@\" | head -n 1", "sh"};
  const std::vector<std::string> save =
      VmsaveCommand(*guest_, {"--image-version", "3", "--progress", "json", "--after", "resume", ImagePath()});
  command.insert(command.end(), save.begin(), save.end());

  EXPECT_TRUE(Succeeded(RunToEnd(command)));

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(InterruptedSaveTest, PausedGuestStaysPaused) {
  guest_->Connect()->Execute("stop");
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(20 * kMiB, "3");

  save->Signal(SIGINT);

  EXPECT_EQ(save->Wait().status, 130);
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(StandsStill(*guest_));
}

TEST_P(InterruptedSaveTest, DeathOfTheGuestIsAnError) {
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle(20 * kMiB, "3");

  guest_->Kill();

  const Outcome outcome = save->Wait();
  EXPECT_TRUE(Refused(outcome, 1, "vmsave: "));
  // The memory of a dead QEMU can still be written: a complete image is then all that is left of the guest.
  if (!FilesBesideImage().empty()) {
    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  }
}

class InterruptedRestoreTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_ = LargeShape(GetParam());
    Guest saved(files_, "saved", shape_);
    saved.Boot();
    ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "3"})));
  }

  void ExpectNothingLeft(const std::vector<std::string>& options, int signal) const {
    const std::filesystem::file_time_type time = std::filesystem::last_write_time(ImagePath());
    const Guest restored(files_, "restored", shape_);
    std::vector<std::string> arguments = options;
    arguments.push_back(ImagePath());
    ProgramRun restore(VmrestoreCommand(restored, arguments));
    WaitUntil("the load", [&] { return restore.Ended() || BytesOnDisk(restored.ram_path()) > 20 * kMiB; });

    restore.Signal(signal);

    EXPECT_TRUE(Refused(restore.Wait(), 130, "interrupted"));
    EXPECT_TRUE(restored.Processes().empty());
    EXPECT_EQ(restored.console().LastTick(), 0U);
    EXPECT_EQ(std::filesystem::last_write_time(ImagePath()), time);
  }

  GuestShape shape_;
};

INSTANTIATE_TEST_SUITE_P(Both, InterruptedRestoreTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(InterruptedRestoreTest, CtrlCLeavesNoQemu) {
  ExpectNothingLeft({"--via", "memory", "--parallel", "1"}, SIGINT);
  ExpectNothingLeft({"--via", "stream", "--parallel", "1"}, SIGINT);
  ExpectNothingLeft({"--via", "multifd", "--parallel", "2"}, SIGINT);

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
}

TEST_P(InterruptedRestoreTest, TerminationLeavesNoQemu) {
  ExpectNothingLeft({"--via", "memory", "--parallel", "1"}, SIGTERM);
  if (GetParam() == WhichQemu::kNew) ExpectNothingLeft({"--via", "native", "--parallel", "1"}, SIGTERM);

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
}

TEST_P(InterruptedRestoreTest, DeathOfQemuIsAnError) {
  for (const std::string way : {"stream", "multifd"}) {
    Guest restored(files_, "restored-" + way, shape_);
    ProgramRun restore(VmrestoreCommand(restored, {"--via", way, "--parallel", "2", ImagePath()}));
    WaitUntil("the load", [&] { return restore.Ended() || BytesOnDisk(restored.ram_path()) > 20 * kMiB; });

    restored.Kill();

    EXPECT_TRUE(Refused(restore.Wait(), 1, "vmrestore: "));
  }
}

}  // namespace
}  // namespace vmsave
