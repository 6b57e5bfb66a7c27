#include "io/held_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <ostream>
#include <string>

#include "tests/io/child_process.h"

namespace vmsave {
namespace {

constexpr std::chrono::seconds kPatience{60};

// A child that does nothing, and is killed and reaped in the end.
class Sleeper {
 public:
  explicit Sleeper(const std::function<void()>& first = [] {}) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    first();
    while (true) ::pause();
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    Reap();
  }

  pid_t pid() const { return pid_; }
  void Reap() const { ::waitpid(pid_, nullptr, 0); }

 private:
  pid_t pid_;
};

struct Kernel {
  bool has_pidfd;
};

std::ostream& operator<<(std::ostream& out, const Kernel& kernel) {
  return out << (kernel.has_pidfd ? "WithPidfd" : "WithoutPidfd");
}

class HeldProcessTest : public testing::TestWithParam<Kernel> {
 protected:
  // What `body` says is wrong; in a process of its own, since the kernel is changed for good.
  static void ExpectNothingWrong(const std::function<std::string()>& body) {
    const std::string wrong = InChild([&]() -> std::string {
      if (!GetParam().has_pidfd && !FailSystemCall(SYS_pidfd_open, ENOSYS)) return kNotPermitted;
      return body();
    });
    if (wrong == kNotPermitted) GTEST_SKIP() << "no seccomp";
    EXPECT_EQ(wrong, "");
  }
};

INSTANTIATE_TEST_SUITE_P(Kernel, HeldProcessTest, testing::Values(Kernel{true}, Kernel{false}),
                         testing::PrintToStringParamName());

TEST_P(HeldProcessTest, HasNotEndedBeforeItEnds) {
  ExpectNothingWrong([]() -> std::string {
    const Sleeper sleeper;
    const HeldProcess process(sleeper.pid());
    if (!process.valid()) return "not valid";
    if (process.descriptor().valid() != GetParam().has_pidfd) return "a descriptor, or none";
    return process.HasEnded() || process.AwaitEnd(std::chrono::milliseconds(1)) ? "ended" : "";
  });
}

TEST_P(HeldProcessTest, HasEndedAlsoWhereNobodyReapsIt) {
  ExpectNothingWrong([]() -> std::string {
    const Sleeper sleeper;
    const HeldProcess process(sleeper.pid());
    process.Signal(SIGKILL);
    if (!process.AwaitEnd(kPatience)) return "a zombie lives";
    sleeper.Reap();
    return process.HasEnded() ? "" : "lives on after it";
  });
}

TEST_P(HeldProcessTest, IsEnded) {
  ExpectNothingWrong([]() -> std::string {
    const Sleeper sleeper;
    const HeldProcess process(sleeper.pid());
    return process.End() && process.HasEnded() ? "" : "is still there";
  });
}

// The list of its facts gives the name as it is.
TEST_P(HeldProcessTest, MayHaveAnyName) {
  ExpectNothingWrong([]() -> std::string {
    std::array<int, 2> named{};
    if (::pipe(named.data()) != 0) return "no pipe";
    const Sleeper sleeper([&] {
      ::prctl(PR_SET_NAME, "x) Z 1 (");
      [[maybe_unused]] const ssize_t written = ::write(named[1], "n", 1);
    });
    char byte = 0;
    if (::read(named[0], &byte, 1) != 1) return "not named";
    const HeldProcess process(sleeper.pid());
    return process.valid() && !process.HasEnded() ? "" : "ended";
  });
}

TEST_P(HeldProcessTest, IsNotValidOnceItWasReaped) {
  ExpectNothingWrong([]() -> std::string {
    const Sleeper sleeper;
    ::kill(sleeper.pid(), SIGKILL);
    sleeper.Reap();
    const HeldProcess process(sleeper.pid());
    return process.valid() || !process.HasEnded() ? "valid" : "";
  });
}

TEST(HeldProcessOfNoneTest, HasEndedAndTakesNoSignal) {
  for (const pid_t pid : {0, -1}) {
    const HeldProcess none(pid);
    EXPECT_FALSE(none.valid());
    EXPECT_TRUE(none.HasEnded());
    none.Signal(SIGKILL);  // which a number of 0 or -1 would send to this process, too
    EXPECT_TRUE(none.End());
  }
}

TEST(PeerPidTest, IsTheProcessOnTheOtherEnd) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const FileDescriptor one(ends[0], "one");
  const FileDescriptor other(ends[1], "other");

  EXPECT_EQ(PeerPid(one), ::getpid());
}

TEST(PeerPidTest, OfWhatIsNoSocketIsAnError) {
  EXPECT_THROW(PeerPid(FileDescriptor()), Error);
}

}  // namespace
}  // namespace vmsave
