#include "io/guard_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/held_process.h"
#include "tests/io/child_process.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

// Each test's process is a child, which ends in one way or another.
class GuardProcessTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0); }
  void TearDown() override { ::prctl(PR_SET_CHILD_SUBREAPER, 0); }

  // Writes down what it was left.
  GuardProcess::Undo WriteDown() const {
    return [path = Path()](const GuardProcess::Legacy& legacy) {
      std::ofstream file(path);
      file << legacy.record;
      for (const GuardProcess::Held& held : legacy.held) file << ' ' << held.role;
    };
  }

  void RunAndKill(const std::function<void(GuardProcess&)>& work) const {
    InChild([&]() -> std::string {
      GuardProcess guard("test-guard", WriteDown());
      work(guard);
      ::kill(::getpid(), SIGKILL);
      return "";
    });
    // The guard, which became our child when its parent ended.
    while (::wait(nullptr) > 0) {
    }
  }

  std::string WrittenDown() const {
    std::ifstream file(Path());
    std::string line;
    std::getline(file, line);
    return line;
  }

  std::string Path() const { return files_.Path("legacy"); }

  static FileDescriptor Duplicate(int number) { return {::dup(number), "a duplicate"}; }

  ScratchDirectory files_;
};

TEST_F(GuardProcessTest, IsLeftTheLastRecordOfAProcessThatIsKilled) {
  RunAndKill([](GuardProcess& guard) {
    guard.Record("first");
    guard.Record("last");
  });

  EXPECT_EQ(WrittenDown(), "last");
}

TEST_F(GuardProcessTest, DoesNothingForAProcessThatHasBegunNothing) {
  RunAndKill([](GuardProcess&) {});

  EXPECT_FALSE(std::filesystem::exists(Path()));
}

TEST_F(GuardProcessTest, IsLeftARecordOfAnyLength) {
  const std::string record(std::size_t{300} << 10, 'x');
  RunAndKill([&record](GuardProcess& guard) {
    guard.Record("first");
    guard.Record(record);
  });

  EXPECT_EQ(WrittenDown(), record);
}

TEST_F(GuardProcessTest, DoesNothingOnceItIsDismissed) {
  RunAndKill([](GuardProcess& guard) {
    guard.Record("begun");
    guard.Dismiss();
  });

  EXPECT_FALSE(std::filesystem::exists(Path()));
}

TEST_F(GuardProcessTest, DoesNothingForAProcessThatEndsWell) {
  InChild([&]() -> std::string {
    GuardProcess guard("test-guard", WriteDown());
    guard.Record("begun");
    return "";
  });

  EXPECT_FALSE(std::filesystem::exists(Path()));
}

TEST_F(GuardProcessTest, DoesItsPartForAProcessThatHasLeft) {
  const std::string said = InChild([&]() -> std::string {
    GuardProcess guard("test-guard", WriteDown());
    guard.Record("left over");
    guard.Leave();
    return WrittenDown() == "left over" ? "" : "left too early";
  });
  EXPECT_EQ(said, "");
}

TEST_F(GuardProcessTest, IsNotAwaitedLongerThanItAsksFor) {
  const std::string said = InChild([&]() -> std::string {
    GuardProcess guard("test-guard", [](GuardProcess::Legacy legacy) {
      legacy.awaited.Close();
      ::pause();
    });
    guard.Record("left over");
    const pid_t pid = guard.pid();
    const auto start = std::chrono::steady_clock::now();
    guard.Leave();
    const bool was_awaited = std::chrono::steady_clock::now() - start > std::chrono::seconds(8);
    const bool goes_on = ::kill(pid, SIGKILL) == 0;
    if (!goes_on || ::waitpid(pid, nullptr, 0) != pid) return "it has ended";
    return was_awaited ? "it was awaited" : "";
  });
  EXPECT_EQ(said, "");
}

TEST_F(GuardProcessTest, HoldsWhatItWasNotToldToLetGo) {
  RunAndKill([](GuardProcess& guard) {
    guard.Record("held:");
    guard.Hold("first", Duplicate(STDERR_FILENO));
    guard.Hold("second", Duplicate(STDERR_FILENO));
    guard.Hold("second", Duplicate(STDERR_FILENO));
    guard.Hold("third", Duplicate(STDERR_FILENO));
    guard.LetGo("second");
  });

  EXPECT_EQ(WrittenDown(), "held: first third");
}

// Whoever waits for the end of a pipe does not wait for the guard; nor does a lock stay that a shell has taken.
std::string WhetherPipeEndsBesideGuard() {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return "no pipe";
  const FileDescriptor read_end(ends[0], "pipe");
  FileDescriptor write_end(ends[1], "pipe");
  FileDescriptor far_from_it(::fcntl(write_end.number(), F_DUPFD, 100), "pipe");
  const GuardProcess guard("test-guard", [](const GuardProcess::Legacy&) {});
  write_end.Close();
  far_from_it.Close();
  pollfd poller{read_end.number(), POLLIN, 0};
  constexpr int kPatienceMs = 60'000;
  if (::poll(&poller, 1, kPatienceMs) != 1) return "it stays open";
  return HeldProcess(guard.pid()).HasEnded() ? "the guard has ended, too" : "it ends";
}

TEST_F(GuardProcessTest, KeepsNothingOpenThatItHasInherited) {
  EXPECT_EQ(InChild(WhetherPipeEndsBesideGuard), "it ends");
}

TEST_F(GuardProcessTest, KeepsNothingOpenWhereTheKernelClosesNoRanges) {
  const std::string said =
      InChild([] { return FailSystemCall(SYS_close_range, ENOSYS) ? WhetherPipeEndsBesideGuard() : kNotPermitted; });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "it ends");
}

TEST_F(GuardProcessTest, IsNotReachedByTheSignalsThatStopAProgram) {
  RunAndKill([](GuardProcess& guard) {
    guard.Record("begun");
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::kill(guard.pid(), signal);
  });

  EXPECT_EQ(WrittenDown(), "begun");
}

TEST_F(GuardProcessTest, AcceptsConnectionsAndHandsThemOver) {
  const std::string socket_path = files_.Path("socket");
  const std::string said = InChild([&]() -> std::string {
    GuardProcess guard("test-guard", WriteDown());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_path.copy(address.sun_path, socket_path.size());
    const FileDescriptor listener(::socket(AF_UNIX, SOCK_STREAM, 0), "listener");
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    if (::bind(listener.number(), generic, sizeof(address)) != 0 || ::listen(listener.number(), 4) != 0) return "bind";
    guard.Record("held:");
    guard.AcceptOn("socket", listener, 1);
    const FileDescriptor client(::socket(AF_UNIX, SOCK_STREAM, 0), "client");
    if (::connect(client.number(), generic, sizeof(address)) != 0 || ::write(client.number(), "hello", 5) != 5) {
      return "connect";
    }
    const std::optional<FileDescriptor> connection = guard.TakeConnection();
    std::array<char, 5> text{};
    if (!connection || ::read(connection->number(), text.data(), text.size()) != 5) return "nothing came";
    return {text.data(), text.size()};
  });

  EXPECT_EQ(said, "hello");
}

TEST_F(GuardProcessTest, IsNotToldAnythingOnceItIsDismissed) {
  const std::string said = InChild([&]() -> std::string {
    GuardProcess guard("test-guard", WriteDown());
    guard.Dismiss();
    guard.Record("late");
    guard.Hold("late", Duplicate(STDERR_FILENO));
    return "alive";
  });

  EXPECT_EQ(said, "alive");
}

TEST_F(GuardProcessTest, ThatWasKilledIsFoundToBeGone) {
  const std::string said = InChild([&]() -> std::string {
    GuardProcess guard("test-guard", [](const GuardProcess::Legacy&) {});
    ::kill(guard.pid(), SIGKILL);
    for (int i = 0; !guard.gone() && i < 10'000; ++i) {
      guard.Record("begun");
      ::usleep(1000);
    }
    return guard.gone() ? "gone" : "there";
  });

  EXPECT_EQ(said, "gone");
}

}  // namespace
}  // namespace vmsave
