// The disk fails, or is slow: vmsave leaves all or nothing, says why, and the guest goes on.
#include <fmt/format.h>
#include <signal.h>

#include <filesystem>
#include <ostream>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

struct Fault {
  std::string name;
  std::string what;
  std::string message;
};

std::ostream& operator<<(std::ostream& out, const Fault& fault) {
  return out << fault.name;
}

class FaultyDiskTest : public EndToEndTest, public testing::WithParamInterface<Fault> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    shape_.memory_kib = 48 << 10;
    guest_ = std::make_unique<Guest>(files_, "guest", shape_);
    guest_->Boot();
  }

  Outcome SaveWithFault(const std::string& what, unsigned number, const std::string& version) const {
    return RunToEnd(WithFault(what, number, sockets_.path(),
                              VmsaveCommand(*guest_, {"--image-version", version, "--io-engine", "sync", "--parallel",
                                                      "2", "--after", "resume", ImagePath()})));
  }

  ScratchDirectory sockets_{std::filesystem::temp_directory_path()};  // names of sockets are short
  GuestShape shape_;
  std::unique_ptr<Guest> guest_;
};

INSTANTIATE_TEST_SUITE_P(Faults, FaultyDiskTest,
                         testing::Values(Fault{"BadWrite", "eio", "Input/output error"},
                                         Fault{"FullDisk", "enospc", "No space left on device"},
                                         Fault{"BadSync", "eiosync", "Input/output error"},
                                         Fault{"BadClose", "eioclose", "Input/output error"}),
                         [](const auto& shown) { return shown.param.name; });

TEST_P(FaultyDiskTest, IsToldAndTheGuestGoesOn) {
  const FaultSteps calls = ChooseFaultSteps(GetParam().what == "eio" || GetParam().what == "enospc" ? 23 : 1);
  for (const std::string version : {"2", "3"}) {
    int faults = 0;
    for (unsigned number = calls.start;; number += calls.stride) {
      SCOPED_TRACE(fmt::format("version {}, call {}: {}", version, number, calls.Text()));
      const Outcome outcome = SaveWithFault(GetParam().what, number, version);
      if (outcome.status == 0) break;  // there are fewer such calls
      ++faults;
      ASSERT_TRUE(Refused(outcome, 1, GetParam().message));
      // A directory that cannot be synced is told of when the file has its name already.
      const bool has_its_name = outcome.err.find("is complete, but") != std::string::npos;
      EXPECT_EQ(std::filesystem::exists(ImagePath()), has_its_name) << outcome.err;
      EXPECT_TRUE(!has_its_name || outcome.err.find("no image was written") == std::string::npos) << outcome.err;
      std::filesystem::remove(ImagePath());
      ASSERT_TRUE(FilesBesideImage().empty());
      ASSERT_EQ(guest_->Status(), "running");
    }
    EXPECT_GT(faults, 0);
    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    std::filesystem::remove(ImagePath());
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

class SlowDiskTest : public FaultyDiskTest {};
INSTANTIATE_TEST_SUITE_P(Faults, SlowDiskTest, testing::Values(Fault{"SlowDisk", "slow", ""}),
                         [](const auto& shown) { return shown.param.name; });

TEST_P(SlowDiskTest, TakesLongerAndNothingElse) {
  for (const std::string version : {"2", "3"}) {
    EXPECT_TRUE(Succeeded(SaveWithFault(GetParam().what, /*milliseconds=*/30, version)));

    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    std::filesystem::remove(ImagePath());
  }

  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(SlowDiskTest, DoesNotKeepAnInterruptWaiting) {
  const std::vector<std::string> save =
      VmsaveCommand(*guest_, {"--image-version", "3", "--io-engine", "sync", "--after", "resume", ImagePath()});
  ProgramRun run(WithFault(GetParam().what, /*milliseconds=*/1000, sockets_.path(), save));
  WaitUntil("the file", [&] { return !FilesBesideImage().empty(); });

  run.Signal(SIGINT);

  EXPECT_TRUE(Refused(run.Wait(), 130, "interrupted"));
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(GoesOn(*guest_));
}

// Where a name is given by a link and the removal of the other name.
class NfsTest : public EndToEndTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {}  // no QEMU needed
};
INSTANTIATE_TEST_SUITE_P(Faults, NfsTest, testing::Values("lostlink", "badunlink"),
                         [](const auto& shown) { return std::string(shown.param); });

TEST_P(NfsTest, SavesAndLeavesNoOtherName) {
  const std::vector<std::string> save{VMSAVE_PROGRAM, "--synthetic", "1M", "--image-version", "3", ImagePath()};

  EXPECT_TRUE(Succeeded(RunToEnd(WithFault(GetParam(), 1, files_.path().string(), save))));

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
}

class ShortWritesTest : public FaultyDiskTest {};
INSTANTIATE_TEST_SUITE_P(Faults, ShortWritesTest, testing::Values(Fault{"ShortWrites", "short", ""}),
                         [](const auto& shown) { return shown.param.name; });

TEST_P(ShortWritesTest, AreContinued) {
  for (const std::string version : {"2", "3"}) {
    ASSERT_TRUE(Succeeded(SaveWithFault("short", 1, version)));

    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    Guest restored(files_, "restored-" + version, shape_);
    EXPECT_TRUE(Succeeded(Restore(restored)));
    restored.console().WaitForTicks(1);
    EXPECT_TRUE(GoesOn(restored, restored.console().FirstTick()));
    std::filesystem::remove(ImagePath());
  }
}

}  // namespace
}  // namespace vmsave
