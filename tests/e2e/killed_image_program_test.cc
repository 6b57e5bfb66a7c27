// vmimage is killed while it makes a file: its guard leaves the whole file or none, and the image as it was.
#include <fmt/format.h>
#include <signal.h>

#include <filesystem>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

constexpr unsigned kUsualStride = 7;

struct WayToMake {
  std::string name;
  std::vector<std::string> arguments;  // IMAGE and FILE stand for the image and for what is made
};

std::ostream& operator<<(std::ostream& out, const WayToMake& way) {
  return out << way.name;
}

// Each makes the same bytes every time; version 2 does over one channel alone.
const WayToMake kWays[] = {{"Version2", {"convert", "--to", "2", "--parallel", "1", "IMAGE", "FILE"}},
                           {"Compressed", {"convert", "--to", "2", "--compress", "zstd", "IMAGE", "FILE"}},
                           {"Sparse", {"convert", "--to", "libvirt-sparse", "IMAGE", "FILE"}},
                           {"Block", {"extract", "--block", "pc.ram", "--output", "FILE", "IMAGE"}}};

class KilledImageProgramTest : public EndToEndTest, public testing::WithParamInterface<WayToMake> {
 protected:
  void SetUp() override {  // no QEMU needed
    ASSERT_TRUE(
        Succeeded(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "8M,zero=50,seed=3", "--image-version", "3", ImagePath()})));
    before_ = ReadWholeFile(ImagePath());
    ASSERT_TRUE(Succeeded(RunToEnd(Command(files_.Path("whole")))));
    whole_ = ReadWholeFile(files_.Path("whole"));
  }

  std::vector<std::string> Command(const std::string& file) const {
    std::vector<std::string> command{VMIMAGE_PROGRAM};
    for (const std::string& argument : GetParam().arguments) {
      command.push_back(argument == "IMAGE" ? ImagePath() : argument == "FILE" ? file : argument);
    }
    return command;
  }

  Outcome RunWithKill(const std::string& what, unsigned step) const {
    return RunToEndOfGuard(WithFault(what, step, files_.Path(""), Command(made_)), made_);
  }

  std::string before_;
  std::string whole_;
  const std::string made_ = ImagePath("made");
};

INSTANTIATE_TEST_SUITE_P(Ways, KilledImageProgramTest, testing::ValuesIn(kWays),
                         [](const auto& shown) { return shown.param.name; });

TEST_P(KilledImageProgramTest, AtAnyStepLeavesAWholeFileOrNone) {
  const FaultSteps steps = ChooseFaultSteps(kUsualStride);
  int kills = 0;
  for (unsigned step = steps.start;; step += steps.stride) {
    SCOPED_TRACE(fmt::format("killed at step {}: {}", step, steps.Text()));

    const Outcome outcome = RunWithKill("kill", step);

    EXPECT_TRUE(!std::filesystem::exists(made_) || ReadWholeFile(made_) == whole_);
    std::filesystem::remove(made_);
    ASSERT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"}) << outcome.err;
    if (outcome.status == 0) break;
    ASSERT_EQ(outcome.status, kKilled) << outcome.err;
    ++kills;
  }
  EXPECT_GT(kills, 0);
  EXPECT_TRUE(ReadWholeFile(ImagePath()) == before_);
}

TEST_P(KilledImageProgramTest, BeforeTheFileHasItsNameSaysThatItIsGone) {
  const Outcome outcome = RunWithKill("killrename", 1);

  EXPECT_EQ(outcome.status, kKilled);
  EXPECT_NE(outcome.err.find("vmimage: killed in the middle; the file that it had begun was removed"),
            std::string::npos)
      << outcome.err;
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
}

}  // namespace
}  // namespace vmsave
