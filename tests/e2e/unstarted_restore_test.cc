// Restores that the image alone rules out: refused before any QEMU is started or asked.
#include <filesystem>
#include <fstream>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

class UnstartedRestoreTest : public EndToEndTest {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    WriteWholeFile(qemu_, "#!/bin/sh\n: > \"$0.was-run\"\nexit 7\n");
    std::filesystem::permissions(qemu_, std::filesystem::perms::owner_all);
  }

  void MakeImage(const std::string& version) const {
    ASSERT_TRUE(Succeeded(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--image-version", version, ImagePath()})));
  }

  void WriteAt(std::streamoff at, const std::string& bytes) const {
    std::fstream file(ImagePath(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(file.good());
  }

  void ExpectRefusedUnstarted(std::vector<std::string> options, int status, const std::string& what) const {
    options.insert(options.begin(), VMRESTORE_PROGRAM);
    options.push_back(ImagePath());
    std::vector<std::string> into_waiting = options;
    into_waiting.insert(into_waiting.end(), {"--qmp", files_.Path("nobody-asks-here")});
    options.insert(options.end(), {"--", qemu_});

    EXPECT_TRUE(Refused(RunToEnd(options), status, what));
    EXPECT_TRUE(Refused(RunToEnd(into_waiting), status, what));

    EXPECT_FALSE(std::filesystem::exists(WasRun())) << "QEMU was started";
  }

  std::string WasRun() const { return qemu_ + ".was-run"; }

  const std::string qemu_ = files_.Path("qemu-system-x86_64");
};

TEST_F(UnstartedRestoreTest, OneThatIsNotRefusedStartsQemu) {
  MakeImage("3");

  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, ImagePath(), "--", qemu_}), 1, "status 7"));

  EXPECT_TRUE(std::filesystem::exists(WasRun()));
}

TEST_F(UnstartedRestoreTest, SequentialStreamThatQemuIsToReadItself) {
  MakeImage("2");

  ExpectRefusedUnstarted({"--via", "native"}, 1, "sequential");
}

TEST_F(UnstartedRestoreTest, CompressedImage) {
  MakeImage("2");
  WriteAt(28, std::string("\x05\0\0\0", 4));

  for (const std::string verify : {"metadata", "full", "off"}) ExpectRefusedUnstarted({"--verify", verify}, 3, "zstd");
}

TEST_F(UnstartedRestoreTest, IncompleteImage) {
  MakeImage("3");
  WriteAt(0, "LibvirtQemudPart");

  for (const std::string verify : {"metadata", "full", "off"}) {
    ExpectRefusedUnstarted({"--verify", verify}, 3, "incomplete");
  }
}

// In a mount namespace of its own, which ends with its last process.
TEST_F(UnstartedRestoreTest, ImageThatCannotBeReadPastTheCache) {
  const std::string mount = "mount -t ramfs none " + images_.path().string();
  if (RunToEnd({"unshare", "--mount", "sh", "-c", mount}).status != 0) GTEST_SKIP() << "this user may not mount";
  const std::string save = std::string(VMSAVE_PROGRAM) + " --synthetic 1M " + ImagePath();
  const std::string restore = std::string(VMRESTORE_PROGRAM) + " --bypass-cache " + ImagePath() + " -- " + qemu_;

  const Outcome outcome = RunToEnd({"unshare", "--mount", "sh", "-c", mount + " && " + save + " && " + restore});

  EXPECT_TRUE(Refused(outcome, 1, "direct I/O"));
  EXPECT_FALSE(std::filesystem::exists(WasRun())) << "QEMU was started";
}

TEST_F(UnstartedRestoreTest, SocketThatIsNotThereIsToBeOfAQemuThatWaits) {
  MakeImage("3");
  const std::vector<std::string> restore{VMRESTORE_PROGRAM, "--qmp", files_.Path("missing"), ImagePath()};

  EXPECT_TRUE(Refused(RunToEnd(restore), 1, "start QEMU with -qmp unix:PATH,server=on,wait=off -incoming defer"));
}

}  // namespace
}  // namespace vmsave
