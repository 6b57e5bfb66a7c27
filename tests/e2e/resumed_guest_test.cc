// Somebody else resumes a guest while vmsave reads its memory.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr int kTries = 20;  // the save may be over before

using ResumedGuestTest = EachQemuTest;

INSTANTIATE_TEST_SUITE_P(Both, ResumedGuestTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(ResumedGuestTest, IsNotSaved) {
  GuestShape shape;
  shape.qemu = GetParam();
  shape.memory_kib = 256 << 10;
  shape.options = "fill=90 seed=7 tick=20 passes=4";
  Guest guest(files_, "guest", shape);
  const std::string second_qmp = files_.Path("second.qmp");
  guest.Boot({"-qmp", "unix:" + second_qmp + ",server=on,wait=off"});
  const Interrupt never;
  QmpClient observer(second_qmp, never, kPatience);
  for (int i = 0; i < kTries; ++i) {
    std::filesystem::remove(ImagePath());
    ProgramRun save(VmsaveCommand(guest, {"--from", "memory", "--image-version", "3", "--parallel", "1", "--io-engine",
                                          "sync", "--after", "resume", ImagePath()}));
    WaitUntil("the reading of its memory",
              [&] { return save.Ended() || observer.Execute("query-status").value("status", "") == "postmigrate"; });
    observer.Execute("cont");
    const Outcome outcome = save.Wait();
    if (outcome.status == 0) continue;

    EXPECT_TRUE(Refused(outcome, 1, "somebody else resumed the guest while it was read"));
    EXPECT_TRUE(FilesBesideImage().empty());
    EXPECT_TRUE(GoesOn(guest));
    return;
  }
  FAIL() << "no save lasted long enough";
}

}  // namespace
}  // namespace vmsave
