#include "io/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>

namespace vmsave {
namespace {

// All of them are blocked, not ignored: who is started with none of them blocked then has what we were started with.
constexpr std::array kStopping{SIGINT, SIGTERM, SIGHUP, SIGQUIT};

// A reader of our output that went away, and a limit on file sizes: both come as errors of the calls as well, and must
// not end a program that has a guest standing still.
constexpr std::array kBecomeErrors{SIGPIPE, SIGXFSZ};

constexpr std::array kJobControl{SIGTSTP, SIGTTIN, SIGTTOU};

bool IsIgnored(int signal) {
  struct sigaction now {};
  return ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

// But those that we were started to ignore: by nohup, or by a shell for what it starts in the background.
sigset_t StoppingSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kStopping) {
    if (!IsIgnored(signal)) sigaddset(&signals, signal);
  }
  return signals;
}

void Change(int how, std::span<const int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  pthread_sigmask(how, &set, nullptr);
}

}  // namespace

Interrupt::Interrupt() : Interrupt(FileDescriptor(::eventfd(0, EFD_CLOEXEC), "eventfd")) {}

Interrupt::Interrupt(FileDescriptor readable_when_requested) : fd_(std::move(readable_when_requested)) {
  if (!fd_.valid()) throw Error::FromErrno("cannot prepare for signals", errno);
}

Interrupt Interrupt::FromSignals() {
  const sigset_t signals = StoppingSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Change(SIG_BLOCK, kBecomeErrors);
  return Interrupt(FileDescriptor(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd"));
}

bool Interrupt::requested() const {
  pollfd poller{fd_.number(), POLLIN, 0};
  return ::poll(&poller, 1, 0) > 0;
}

void Interrupt::Check() const {
  if (requested()) throw Error(ErrorKind::kInterrupted, "stopped", "interrupted by the operator");
}

void Interrupt::Take() const {
  signalfd_siginfo signal{};  // an eventfd's value is shorter
  if (!requested()) return;
  [[maybe_unused]] const ssize_t count = ::read(fd_.number(), &signal, sizeof(signal));
}

bool Interrupt::WaitReadable(int fd, int timeout_ms) const {
  std::array<pollfd, 2> set{pollfd{fd, POLLIN, 0}, pollfd{fd_.number(), POLLIN, 0}};
  int ready = 0;
  do {
    ready = ::poll(set.data(), set.size(), timeout_ms);
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) throw Error::FromErrno("cannot wait for input", errno);
  Check();
  return ready > 0;
}

void HoldOffJobControl() {
  Change(SIG_BLOCK, kJobControl);
}

void UnblockSignals() {
  Change(SIG_UNBLOCK, kStopping);
  Change(SIG_UNBLOCK, kBecomeErrors);
  Change(SIG_UNBLOCK, kJobControl);
}

}  // namespace vmsave
