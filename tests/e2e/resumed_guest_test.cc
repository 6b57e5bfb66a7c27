// Somebody else resumes a guest while it is saved, or pauses it.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"
#include "tests/e2e/ways_to_save.h"

namespace vmsave {
namespace {

class ResumedGuestTest : public EndToEndTest, public testing::WithParamInterface<WayToSave> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    GuestShape shape;
    shape.qemu = GetParam().qemu;
    shape.ram = GetParam().ram;
    shape.memory_kib = 64 << 10;
    guest_ = std::make_unique<Guest>(files_, "guest", shape);
    guest_->Boot({"-qmp", "unix:" + files_.Path("second.qmp") + ",server=on,wait=off"});
    second_ = std::make_unique<QmpClient>(files_.Path("second.qmp"), never_, kPatience);
  }

  std::vector<std::string> SaveWithFault(const std::string& what, unsigned number, const std::string& after) const {
    std::vector<std::string> arguments{"--after", after, "--io-engine", "sync"};
    arguments.insert(arguments.end(), GetParam().options.begin(), GetParam().options.end());
    arguments.push_back(ImagePath());
    return WithFault(what, number, sockets_.path(), VmsaveCommand(*guest_, arguments));
  }

  // Resumes the guest as soon as `save` has stopped at its fault.
  void ResumeMeanwhile(const ProgramRun& save) const {
    WaitUntil("the stop of vmsave", [&] { return IsStopped(save); });
    second_->Execute("cont");
    save.Signal(SIGCONT);
  }

  const Interrupt never_;
  ScratchDirectory sockets_{std::filesystem::temp_directory_path()};  // names of sockets are short
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<QmpClient> second_;
};

bool StopsTheGuest(const WayToSave& way) {
  return !IsSnapshot(way) && IsUsual(way);
}

INSTANTIATE_TEST_SUITE_P(Ways, ResumedGuestTest, testing::ValuesIn(WaysToSave(StopsTheGuest)), NameOfWay);

// Its disks are newer than what was saved of it: to end it would leave an image that ruins them.
TEST_P(ResumedGuestTest, IsNotEndedWithAnOlderImage) {
  ProgramRun save(SaveWithFault("stopsync", 1, "quit"));

  ResumeMeanwhile(save);

  EXPECT_TRUE(Refused(save.Wait(), 1, "somebody else resumed it while it was saved"));
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(GoesOn(*guest_));
}

class ResumedLateTest : public ResumedGuestTest {};
INSTANTIATE_TEST_SUITE_P(Memory, ResumedLateTest, testing::Values(AllWaysToSave().front()), NameOfWay);

TEST_P(ResumedLateTest, RunsOnBesideItsImageWhichIsSaid) {
  ProgramRun save(SaveWithFault("stoprename", 1, "quit"));

  ResumeMeanwhile(save);

  EXPECT_TRUE(Refused(save.Wait(), 1, "somebody else has resumed it (see to it"));
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  EXPECT_TRUE(GoesOn(*guest_));
}

// Slow, so that its memory is still read then.
TEST_P(ResumedLateTest, IsNotSavedWhereItsMemoryMayHaveChanged) {
  ProgramRun save(SaveWithFault("slow", /*milliseconds=*/20, "resume"));
  WaitUntil("the reading of its memory",
            [&] { return save.Ended() || second_->Execute("query-status").value("status", "") == "postmigrate"; });

  second_->Execute("cont");

  EXPECT_TRUE(Refused(save.Wait(), 1, "somebody else resumed it while it was saved"));
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(GoesOn(*guest_));
}

class PausedMeanwhileTest : public ResumedGuestTest {
 protected:
  // Each number of bytes that it shows, it has asked QEMU for; and how the guest is, before the next.
  static void AwaitNotice(ProgramRun& save) {
    const std::size_t before = NumbersIn(save.out()).size();
    WaitUntil("a look of vmsave", [&] { return save.Ended() || NumbersIn(save.out()).size() >= before + 3; });
  }

 private:
  static std::set<std::uint64_t> NumbersIn(const std::string& out) {
    std::set<std::uint64_t> numbers;
    std::istringstream lines(out);
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (object.is_object() && object.contains("progress"))
        numbers.insert(object["progress"].value("done", std::uint64_t{0}));
    }
    return numbers;
  }
};

std::vector<WayToSave> LiveWays() {
  std::vector<WayToSave> ways = WaysToSave([](const WayToSave& way) { return HasOption(way, "--live"); });
  for (WayToSave& way : ways) way.options.insert(way.options.end(), {"--max-bandwidth", "1M", "--progress", "json"});
  return ways;
}

INSTANTIATE_TEST_SUITE_P(Ways, PausedMeanwhileTest, testing::ValuesIn(LiveWays()), NameOfWay);

TEST_P(PausedMeanwhileTest, StaysPausedWhicheverWriteFails) {
  int failures = 0;
  const FaultSteps calls = ChooseFaultSteps(97);
  for (unsigned number = calls.start;; number += calls.stride) {
    SCOPED_TRACE(fmt::format("write {}: {}", number, calls.Text()));
    ProgramRun save(SaveWithFault("enospc", number, "resume"));
    WaitUntil("the migration",
              [&] { return save.Ended() || second_->Execute("query-migrate").value("status", "") == "active"; });

    second_->Execute("stop");
    AwaitNotice(save);
    second_->Execute("migrate-set-parameters", {{"max-bandwidth", std::uint64_t{1} << 40}});  // it is slow until then

    const Outcome outcome = save.Wait();
    ASSERT_NE(guest_->Status(), "running") << outcome.err;
    second_->Execute("cont");
    if (outcome.status == 0) break;
    ++failures;
  }
  EXPECT_GT(failures, 0);
}

}  // namespace
}  // namespace vmsave
