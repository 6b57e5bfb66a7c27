// What the programs are started with: the signals of a careless service.
#include "tests/e2e/end_to_end_test.h"

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

}  // namespace
}  // namespace vmsave
