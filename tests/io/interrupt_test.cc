#include "io/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/io/child_process.h"

namespace vmsave {
namespace {

// An eventfd and a second descriptor of it, by which the test makes the first readable.
class Trigger {
 public:
  Trigger() : fd_(::eventfd(0, EFD_CLOEXEC), "eventfd") {}
  FileDescriptor Share() const { return {::dup(fd_.number()), "eventfd"}; }
  int number() const { return fd_.number(); }
  void Pull() const { ASSERT_EQ(::eventfd_write(fd_.number(), 1), 0); }

 private:
  FileDescriptor fd_;
};

TEST(InterruptTest, OneThatNeverComesDoesNotCome) {
  const Interrupt interrupt;
  EXPECT_FALSE(interrupt.requested());
  EXPECT_NO_THROW(interrupt.Check());
}

TEST(InterruptTest, RequestStaysAndIsThrownAsInterrupted) {
  const Trigger trigger;
  const Interrupt interrupt(trigger.Share());
  EXPECT_FALSE(interrupt.requested());
  trigger.Pull();
  EXPECT_TRUE(interrupt.requested());
  EXPECT_TRUE(interrupt.requested());
  try {
    interrupt.Check();
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

TEST(InterruptTest, InvalidDescriptorIsAnError) {
  EXPECT_THROW(Interrupt{FileDescriptor{}}, Error);
}

TEST(InterruptTest, WaitReadableTellsInputFromTimeout) {
  const Trigger input;
  const Interrupt interrupt;
  EXPECT_FALSE(interrupt.WaitReadable(input.number(), 10));
  input.Pull();
  EXPECT_TRUE(interrupt.WaitReadable(input.number(), -1));
}

TEST(InterruptTest, RequestFromAnotherThreadEndsTheWait) {
  const Trigger input;
  const Trigger trigger;
  const Interrupt interrupt(trigger.Share());
  std::thread operator_thread([&] { trigger.Pull(); });
  EXPECT_THROW(interrupt.WaitReadable(input.number(), -1), Error);
  operator_thread.join();
}

TEST(InterruptTest, SignalsBecomeARequest) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const std::string said = InChild([signal]() -> std::string {
      const Interrupt interrupt = Interrupt::FromSignals();
      if (interrupt.requested()) return "requested too early";
      ::raise(signal);
      interrupt.Check();
      return "not requested";
    });
    EXPECT_EQ(said, "stopped: interrupted by the operator") << signal;
  }
}

TEST(InterruptTest, SignalThatWasIgnoredStaysSo) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    const std::string said = InChild([signal]() -> std::string {
      ::signal(signal, SIG_IGN);
      const Interrupt interrupt = Interrupt::FromSignals();
      ::raise(signal);
      interrupt.Check();
      return "not requested";
    });
    EXPECT_EQ(said, "not requested") << signal;
  }
}

// Whatever a program that is started then may think of them, it is what the shell wanted.
TEST(InterruptTest, LeavesWhatIsDoneWithSignalsAsItWas) {
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE, SIGXFSZ, SIGTSTP, SIGTTIN, SIGTTOU}) {
    for (const auto handler : {SIG_DFL, SIG_IGN}) {
      const std::string said = InChild([signal, handler]() -> std::string {
        ::signal(signal, handler);
        const Interrupt interrupt = Interrupt::FromSignals();
        HoldOffJobControl();
        UnblockSignals();
        sigset_t blocked;
        pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        if (sigismember(&blocked, signal) != 0) return "blocked";
        struct sigaction now {};
        ::sigaction(signal, nullptr, &now);
        return now.sa_handler == handler ? "as it was" : "changed";
      });
      EXPECT_EQ(said, "as it was") << signal;
    }
  }
}

TEST(InterruptTest, PipeThatNobodyReadsAndALimitOnFilesAreErrors) {
  const std::string said = InChild([]() -> std::string {
    const Interrupt interrupt = Interrupt::FromSignals();
    ::raise(SIGPIPE);
    ::raise(SIGXFSZ);
    interrupt.Check();
    return "lives on";
  });
  EXPECT_EQ(said, "lives on");
}

TEST(InterruptTest, JobControlThatIsHeldOffStopsNothing) {
  const std::string said = InChild([]() -> std::string {
    HoldOffJobControl();
    for (const int signal : {SIGTSTP, SIGTTIN, SIGTTOU}) ::raise(signal);
    return "goes on";
  });
  EXPECT_EQ(said, "goes on");
}

TEST(InterruptTest, UnblockedSignalsKillAgain) {
  const std::string said = InChild([]() -> std::string {
    const Interrupt interrupt = Interrupt::FromSignals();
    UnblockSignals();
    ::signal(SIGTERM, SIG_DFL);
    ::raise(SIGTERM);
    return "survived";
  });
  EXPECT_EQ(said, "(died: " + std::to_string(SIGTERM) + ")");
}

}  // namespace
}  // namespace vmsave
