// What goes wrong in the middle of a save whose RAM comes from QEMU: the guest goes on as before, no file is left, and
// the message says what it was.
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/ways_to_save.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMiddle = std::uint64_t{6} << 20;        // bytes written by then
constexpr std::uint64_t kFileSystem = std::uint64_t{512} << 20;  // has room for the guest

constexpr std::size_t kChannels = 2;

bool ComesFromQemuAndIsNoSnapshot(const WayToSave& way) {
  return ComesFromQemu(way) && !IsSnapshot(way);
}

// Bytes of all files in a directory that are on its disk.
std::uint64_t BytesIn(const std::filesystem::path& directory) {
  std::uint64_t bytes = 0;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(directory, gone)) {
    struct stat status {};
    if (::stat(entry.path().c_str(), &status) == 0) bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  return bytes;
}

class SaveFaultTest : public EndToEndTest, public testing::WithParamInterface<WayToSave> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    BootNewGuest();
  }

  void BootNewGuest() {
    GuestShape shape;
    shape.qemu = GetParam().qemu;
    shape.ram = GetParam().ram;
    shape.memory_kib = 128 << 10;
    // Changes its memory, so that a page it cannot write to would be seen.
    shape.options = "fill=50 seed=7 tick=20 passes=4 dirty=50 rezero=20";
    guest_.reset();
    guest_ = std::make_unique<Guest>(files_, "guest", shape);
    std::filesystem::remove(guest_->log_path());
    guest_->Boot();
    settings_ = MigrationSettingsOf(*guest_);
  }

  // Slow enough to be caught in the middle; but a snapshot, which cannot be held back.
  std::vector<std::string> SlowSave(const std::string& image, const std::string& after) const {
    std::vector<std::string> arguments{"--parallel", std::to_string(kChannels), "--after", after};
    if (!IsSnapshot(GetParam())) arguments.insert(arguments.end(), {"--max-bandwidth", "4M"});
    arguments.insert(arguments.end(), GetParam().options.begin(), GetParam().options.end());
    arguments.push_back(image);
    return VmsaveCommand(*guest_, arguments);
  }

  static void WaitForTheMiddle(ProgramRun& save, const std::filesystem::path& directory) {
    WaitUntil("bytes of the image", [&] {
      if (save.Ended()) throw std::runtime_error("the save is over: " + save.err());
      return BytesIn(directory) >= kMiddle;
    });
  }

  std::unique_ptr<ProgramRun> SaveInTheMiddle(const std::string& after = "resume") const {
    auto save = std::make_unique<ProgramRun>(SlowSave(ImagePath(), after));
    WaitForTheMiddle(*save, std::filesystem::path(ImagePath()).parent_path());
    return save;
  }

  void ExpectAllAsBefore() const {
    EXPECT_TRUE(FilesBesideImage().empty());
    EXPECT_EQ(guest_->Status(), "running");
    EXPECT_EQ(nlohmann::json::diff(settings_, MigrationSettingsOf(*guest_)), nlohmann::json::array());
    EXPECT_TRUE(GoesOn(*guest_));
    std::vector<std::string> again = GetParam().options;
    again.insert(again.end(), {"--after", "resume"});
    EXPECT_TRUE(Succeeded(Save(*guest_, again)));
  }

  std::unique_ptr<Guest> guest_;
  nlohmann::json settings_;
};

class EveryWayTest : public SaveFaultTest {};
INSTANTIATE_TEST_SUITE_P(Ways, EveryWayTest, testing::ValuesIn(WaysToSave(ComesFromQemu)), NameOfWay);

TEST_P(EveryWayTest, QemuThatIsKilledIsTold) {
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle();

  guest_->Kill();

  EXPECT_TRUE(Refused(save->Wait(), 1, "vmsave: cannot save vm1: its QEMU ended while it was being saved ("));
  EXPECT_TRUE(FilesBesideImage().empty());
}

// Its client's command is answered when it goes on.
TEST_P(EveryWayTest, InterruptedSaveOfAQemuThatHangsForAWhileIsUndone) {
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle();
  const pid_t qemu = guest_->Processes().front();

  ::kill(qemu, SIGSTOP);
  save->Signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // any time below vmsave's patience is right
  ::kill(qemu, SIGCONT);

  EXPECT_TRUE(Refused(save->Wait(), 130, "no image was written"));
  ExpectAllAsBefore();
}

class PausedGuestTest : public SaveFaultTest {};
INSTANTIATE_TEST_SUITE_P(Ways, PausedGuestTest, testing::ValuesIn(WaysToSave(ComesFromQemuAndIsNoSnapshot)), NameOfWay);

TEST_P(PausedGuestTest, QemuThatIsKilledIsTold) {
  guest_->Connect()->Execute("stop");
  const std::unique_ptr<ProgramRun> save = SaveInTheMiddle();

  guest_->Kill();

  EXPECT_TRUE(Refused(save->Wait(), 1, "vmsave: cannot save vm1: its QEMU ended while it was being saved ("));
  EXPECT_TRUE(FilesBesideImage().empty());
}

class SecondSaveTest : public SaveFaultTest {};
INSTANTIATE_TEST_SUITE_P(OneWay, SecondSaveTest, testing::Values(WaysToSave(IsOverSockets).front()), NameOfWay);

TEST_P(SecondSaveTest, IsRefusedAndDoesNotDisturbTheFirst) {
  const std::unique_ptr<ProgramRun> first = SaveInTheMiddle();

  EXPECT_TRUE(Refused(RunToEnd(SlowSave(ImagePath("second.sav"), "resume")), 1, "another client holds the QMP socket"));

  EXPECT_FALSE(first->Ended());
  first->Signal(SIGINT);
  first->Wait();
  ExpectAllAsBefore();
}

// A file system of its own for vmsave. Who is not root needs a user namespace for it.
class FullDiskTest : public SaveFaultTest {
 protected:
  std::vector<std::string> SaveInOwnFileSystem() const {
    const std::string directory = std::filesystem::path(ImagePath()).parent_path().string();
    std::vector<std::string> command{"unshare",
                                     kNamespaces,
                                     "sh",
                                     "-c",
                                     R"(mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@")",
                                     "sh",
                                     std::to_string(kFileSystem),
                                     directory};
    const std::vector<std::string> save = SlowSave(ImagePath(), "resume");
    command.insert(command.end(), save.begin(), save.end());
    return command;
  }

  static bool CanMount() {
    return RunToEnd({"unshare", kNamespaces, "sh", "-c", "mount -t tmpfs none /tmp"}).status == 0;
  }

  static inline const bool kIsRoot = ::geteuid() == 0;
  static inline const std::string kNamespaces = kIsRoot ? "-m" : "-rm";
};

INSTANTIATE_TEST_SUITE_P(Ways, FullDiskTest, testing::ValuesIn(WaysToSave(ComesFromQemuAndIsNoSnapshot)), NameOfWay);

void FillUp(const std::filesystem::path& file) {
  std::ofstream stream(file, std::ios::binary);
  const std::string piece(1 << 20, 'x');
  while (stream.write(piece.data(), static_cast<std::streamsize>(piece.size())).flush()) {
  }
}

TEST_P(FullDiskTest, IsToldWithTheFileAndTheGuestGoesOn) {
  if (!CanMount()) GTEST_SKIP() << "no file system can be mounted in a namespace of one's own here";
  if (!kIsRoot && HasOption(GetParam(), "multifd")) {
    GTEST_SKIP() << "a vmsave in a user namespace of its own cannot tell whether QEMU sees its sockets";
  }
  ProgramRun save(SaveInOwnFileSystem());
  const std::filesystem::path directory =
      fmt::format("/proc/{}/root{}", save.pid(), std::filesystem::path(ImagePath()).parent_path().string());
  WaitForTheMiddle(save, directory);

  FillUp(directory / "filler");

  const Outcome outcome = save.Wait();
  EXPECT_TRUE(Refused(outcome, 1, "No space left on device"));
  EXPECT_TRUE(Refused(outcome, 1, "vm1.sav"));
  ExpectAllAsBefore();
}

// What a network or an operator would do to the connections of a migration that is not on one host.
class BrokenConnectionTest : public SaveFaultTest {
 protected:
  // A duplicate of another process's descriptor. Not valid where that is not allowed.
  static FileDescriptor Duplicate(pid_t process, int number) {
    const FileDescriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)), "a process");
    return {static_cast<int>(::syscall(SYS_pidfd_getfd, handle.number(), number, 0)), "a duplicate"};
  }

  bool IsToQmp(const FileDescriptor& socket) const {
    sockaddr_un peer{};
    socklen_t length = sizeof(peer);
    return ::getpeername(socket.number(), reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
           guest_->qmp_path() == &peer.sun_path[0];
  }

  static bool IsConnection(const FileDescriptor& socket) {
    int type = 0;
    socklen_t length = sizeof(type);
    if (::getsockopt(socket.number(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) return false;
    sockaddr_un peer{};
    length = sizeof(peer);
    return ::getpeername(socket.number(), reinterpret_cast<sockaddr*>(&peer), &length) == 0;
  }

  // Those that the migration comes over.
  std::vector<FileDescriptor> Connections(pid_t process) const {
    std::vector<FileDescriptor> found;
    for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", process))) {
      FileDescriptor duplicate = Duplicate(process, std::stoi(entry.path().filename().string()));
      if (duplicate.valid() && IsConnection(duplicate) && !IsToQmp(duplicate)) found.push_back(std::move(duplicate));
    }
    return found;
  }
};

INSTANTIATE_TEST_SUITE_P(Ways, BrokenConnectionTest, testing::ValuesIn(WaysToSave(IsOverSockets)), NameOfWay);

TEST_P(BrokenConnectionTest, IsToldAndTheGuestGoesOn) {
  if (!Duplicate(guest_->Processes().front(), 0).valid()) GTEST_SKIP() << "pidfd_getfd(2) is not allowed here";
  const std::size_t count = HasOption(GetParam(), "multifd") ? kChannels + 1 : 1;  // the main stream
  for (std::size_t i = 0; i < count; ++i) {
    SCOPED_TRACE(fmt::format("connection {} of {}", i, count));
    const std::unique_ptr<ProgramRun> save = SaveInTheMiddle();
    const std::vector<FileDescriptor> connections = Connections(save->pid());
    ASSERT_EQ(connections.size(), count);

    ::shutdown(connections[i].number(), SHUT_RDWR);

    // Seen by whoever looks first: QEMU, or this end of any connection, since QEMU closes all when one fails.
    const Outcome outcome = save->Wait();
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    EXPECT_TRUE(outcome.err.find("QEMU cannot send the guest") != std::string::npos ||
                outcome.err.find("cannot receive the guest's migration") != std::string::npos ||
                outcome.err.find("one of its multifd channels was closed") != std::string::npos)
        << outcome.err;
    EXPECT_TRUE(FilesBesideImage().empty());
    EXPECT_EQ(guest_->Status(), "running");
    // QEMU 7.2 may wait for a channel that it has lost, for good; that is told.
    const bool hangs = outcome.err.find("QEMU does not get its migration of vm1 ended") != std::string::npos;
    EXPECT_TRUE(!hangs || (GetParam().qemu == WhichQemu::kOld && count > 1)) << outcome.err;
    if (hangs) BootNewGuest();
  }
  ExpectAllAsBefore();
}

}  // namespace
}  // namespace vmsave
