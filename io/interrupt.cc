#include "io/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace vmsave {
namespace {

// A reader of our output that went away, and a limit on file sizes: both come as errors of the calls as well, and must
// not end a program that has a guest standing still.
constexpr std::array kBecomeErrors{SIGPIPE, SIGXFSZ};

sigset_t StoppingSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGQUIT);
  return signals;
}

}  // namespace

Interrupt::Interrupt() : Interrupt(FileDescriptor(::eventfd(0, EFD_CLOEXEC), "eventfd")) {}

Interrupt::Interrupt(FileDescriptor readable_when_requested) : fd_(std::move(readable_when_requested)) {
  if (!fd_.valid()) throw Error::FromErrno("cannot prepare for signals", errno);
}

Interrupt Interrupt::FromSignals() {
  const sigset_t signals = StoppingSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  for (const int signal : kBecomeErrors) ::signal(signal, SIG_IGN);
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

void UnblockSignals() {
  const sigset_t signals = StoppingSignals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  for (const int signal : kBecomeErrors) ::signal(signal, SIG_DFL);
}

}  // namespace vmsave
