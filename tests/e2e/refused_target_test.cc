// Places that an image cannot be written to: found out before the guest is stopped.
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"

namespace vmsave {
namespace {

constexpr const char* kMayNotMount = "this user may not mount file systems";

// A file system that only this process and its children see.
class PrivateMount {
 public:
  PrivateMount(const std::string& type, const std::string& directory, const std::string& options)
      : directory_(directory) {
    std::filesystem::create_directory(directory);
    is_there_ = ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                ::mount("none", directory.c_str(), type.c_str(), 0, options.c_str()) == 0;
  }
  PrivateMount(const PrivateMount&) = delete;
  PrivateMount& operator=(const PrivateMount&) = delete;
  ~PrivateMount() {
    if (is_there_) ::umount2(directory_.c_str(), MNT_DETACH);
  }

  bool is_there() const { return is_there_; }
  bool IsEmpty() const { return std::filesystem::is_empty(directory_); }
  bool MakeReadOnly() const {
    return ::mount(nullptr, directory_.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }

 private:
  std::string directory_;
  bool is_there_ = false;
};

class RefusedTargetTest : public EndToEndTest {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    guest_ = std::make_unique<Guest>(files_, "guest", GuestShape{});
    const std::string events = files_.Path("events.qmp");
    guest_->Boot({"-qmp", "unix:" + events + ",server=on,wait=off"});
    events_ = std::make_unique<QmpClient>(events, never_, kPatience);
  }

  Outcome SaveTo(const std::string& path, const std::vector<std::string>& options = {}) const {
    std::vector<std::string> arguments = options;
    arguments.push_back(path);
    return RunToEnd(VmsaveCommand(*guest_, arguments));
  }

  bool WasStopped() {
    const std::vector<QmpClient::Json> events = events_->TakeEvents();
    return std::ranges::any_of(events, [](const auto& event) { return event.value("event", "") == "STOP"; });
  }

  // Runs, and was not stopped for a moment.
  void ExpectUntouched() {
    EXPECT_FALSE(WasStopped());
    ExpectRuns();
  }

  void ExpectRuns() const {
    EXPECT_EQ(guest_->Status(), "running");
    EXPECT_TRUE(GoesOn(*guest_));
  }

  Interrupt never_;
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<QmpClient> events_;  // hears of each time that the guest is stopped
};

TEST_F(RefusedTargetTest, ExistingFileIsKept) {
  WriteWholeFile(ImagePath(), "precious");

  EXPECT_TRUE(Refused(SaveTo(ImagePath()), 1, "--force"));

  EXPECT_EQ(ReadWholeFile(ImagePath()), "precious");
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  ExpectUntouched();
}

TEST_F(RefusedTargetTest, ExistingFileIsReplacedOnRequest) {
  WriteWholeFile(ImagePath(), "precious");

  ASSERT_TRUE(Succeeded(SaveTo(ImagePath(), {"--force", "--after", "resume"})));

  EXPECT_EQ(ReadWholeFile(ImagePath()).substr(0, 16), "LibvirtQemudSave");
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  EXPECT_TRUE(WasStopped());
  ExpectRuns();
}

TEST_F(RefusedTargetTest, MissingDirectory) {
  EXPECT_TRUE(Refused(SaveTo(ImagePath("missing/vm1.sav")), 1, images_.Path("missing")));

  EXPECT_TRUE(FilesBesideImage().empty());
  ExpectUntouched();
}

TEST_F(RefusedTargetTest, DirectoryThatIsAFile) {
  WriteWholeFile(ImagePath("file"), "text");

  EXPECT_TRUE(Refused(SaveTo(ImagePath("file/vm1.sav")), 1, "not a directory"));

  ExpectUntouched();
}

TEST_F(RefusedTargetTest, WhatIsNoRegularFile) {
  ASSERT_EQ(::mkfifo(ImagePath("pipe").c_str(), 0600), 0);
  std::filesystem::create_directory(ImagePath("directory"));
  std::filesystem::create_symlink(ImagePath("elsewhere"), ImagePath("link"));

  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--force"}}) {
    EXPECT_TRUE(Refused(SaveTo(ImagePath("pipe"), more), 1, "it is a pipe"));
    EXPECT_TRUE(Refused(SaveTo(ImagePath("directory"), more), 1, "it is a directory"));
    EXPECT_TRUE(Refused(SaveTo(ImagePath("link"), more), 1, "it is a symbolic link"));
    EXPECT_TRUE(Refused(SaveTo("/dev/null", more), 1, "it is a device"));
    EXPECT_TRUE(Refused(SaveTo(guest_->qmp_path(), more), 1, "it is a socket"));
  }

  EXPECT_EQ(FilesBesideImage().size(), 3U);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  ExpectUntouched();
}

TEST_F(RefusedTargetTest, PathThatNamesNoFile) {
  EXPECT_TRUE(Refused(SaveTo(ImagePath("")), 1, "directory"));
  EXPECT_TRUE(Refused(SaveTo(""), 1, "empty"));

  ExpectUntouched();
}

TEST_F(RefusedTargetTest, DirectoryThatNobodyMayWriteTo) {
  const PrivateMount mount("tmpfs", files_.Path("mount"), "size=256m");
  if (!mount.is_there() || !mount.MakeReadOnly()) GTEST_SKIP() << kMayNotMount;

  EXPECT_TRUE(Refused(SaveTo(files_.Path("mount/vm1.sav")), 1, "read-only"));

  ExpectUntouched();
}

TEST_F(RefusedTargetTest, DirectoryThatThisUserMayNotWriteTo) {
  if (::geteuid() == 0) GTEST_SKIP() << "permissions do not stop root";
  std::filesystem::permissions(images_.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);

  EXPECT_TRUE(Refused(SaveTo(ImagePath()), 1, "not writable"));

  std::filesystem::permissions(images_.path(), std::filesystem::perms::owner_all);
  ExpectUntouched();
}

TEST_F(RefusedTargetTest, FileSystemWithoutDirectIo) {
  const PrivateMount mount("ramfs", files_.Path("mount"), "");
  if (!mount.is_there()) GTEST_SKIP() << kMayNotMount;

  EXPECT_TRUE(Refused(SaveTo(files_.Path("mount/vm1.sav"), {"--bypass-cache"}), 1, "direct I/O"));

  EXPECT_TRUE(mount.IsEmpty());
  ExpectUntouched();
}

TEST_F(RefusedTargetTest, TooLittleFreeSpaceIsSeenBeforeTheGuestIsStopped) {
  const PrivateMount mount("tmpfs", files_.Path("mount"), "size=20m");
  if (!mount.is_there()) GTEST_SKIP() << kMayNotMount;

  EXPECT_TRUE(Refused(SaveTo(files_.Path("mount/vm1.sav")), 1, "MiB are free"));

  EXPECT_TRUE(mount.IsEmpty());
  ExpectUntouched();
}

// Of two that both found nothing there.
TEST_F(RefusedTargetTest, FirstOfTwoSavesUnderOneNameHasIt) {
  const ScratchDirectory sockets{std::filesystem::temp_directory_path()};  // names of sockets are short
  Guest other(files_, "other", GuestShape{});
  other.Boot();
  ProgramRun later(
      WithFault("stoprename", 1, sockets.path(), VmsaveCommand(*guest_, {"--after", "resume", ImagePath()})));
  WaitUntil("the later save's last step", [&] { return IsStopped(later); });

  const Outcome first = RunToEnd(VmsaveCommand(other, {ImagePath()}));
  const std::string image = ReadWholeFile(ImagePath());
  later.Signal(SIGCONT);
  const Outcome refused = later.Wait();

  EXPECT_TRUE(Succeeded(first));
  EXPECT_TRUE(Refused(refused, 1, "it exists already, since a moment ago"));
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  EXPECT_TRUE(ReadWholeFile(ImagePath()) == image);
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  ExpectRuns();
}

}  // namespace
}  // namespace vmsave
