// Somebody else resumes a guest while vmsave reads its memory.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

using ResumedGuestTest = EachQemuTest;

INSTANTIATE_TEST_SUITE_P(Both, ResumedGuestTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(ResumedGuestTest, IsNotSaved) {
  GuestShape shape;
  shape.qemu = GetParam();
  shape.options = "fill=90 seed=7 tick=20 passes=4";
  Guest guest(files_, "guest", shape);
  const std::string second_qmp = files_.Path("second.qmp");
  guest.Boot({"-qmp", "unix:" + second_qmp + ",server=on,wait=off"});
  const Interrupt never;
  QmpClient observer(second_qmp, never, kPatience);
  const ScratchDirectory sockets(std::filesystem::temp_directory_path());  // names of sockets are short
  const std::vector<std::string> save =
      VmsaveCommand(guest, {"--from", "memory", "--image-version", "3", "--parallel", "1", "--io-engine", "sync",
                            "--after", "resume", ImagePath()});
  // Goes on with its thousand writes for seconds after the guest was stopped.
  ProgramRun run(WithFault("slow", /*milliseconds=*/5, sockets.path(), save));
  WaitUntil("the reading of its memory",
            [&] { return run.Ended() || observer.Execute("query-status").value("status", "") == "postmigrate"; });

  observer.Execute("cont");

  EXPECT_TRUE(Refused(run.Wait(), 1, "somebody else resumed the guest while it was read"));
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_TRUE(GoesOn(guest));
}

}  // namespace
}  // namespace vmsave
