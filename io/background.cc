#include "io/background.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "io/file_descriptor.h"
#include "io/interrupt.h"

namespace vmsave {
namespace {

void LeaveTerminalAndStreams() {
  ::setsid();
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, stream);
  ::close(null);
}

int ExitStatus(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// Those of the terminal have reached the child too.
void PassOn(const Interrupt& interrupt, pid_t child) {
  signalfd_siginfo signal{};
  if (::read(interrupt.descriptor(), &signal, sizeof(signal)) != sizeof(signal)) return;
  const auto number = static_cast<int>(signal.ssi_signo);
  const bool from_terminal = signal.ssi_code == SI_KERNEL;
  if (!from_terminal) ::kill(child, number);
}

// The child's word, or its end.
int AwaitWord(const FileDescriptor& word, const Interrupt& interrupt, pid_t child) {
  while (true) {
    std::array<pollfd, 2> set{pollfd{word.number(), POLLIN, 0}, pollfd{interrupt.descriptor(), POLLIN, 0}};
    if (::poll(set.data(), set.size(), -1) < 0 && errno != EINTR) return ExitStatus(child);
    if (set[1].revents != 0) PassOn(interrupt, child);
    if (set[0].revents == 0) continue;
    char byte = 0;
    return ::read(word.number(), &byte, 1) == 1 ? 0 : ExitStatus(child);
  }
}

}  // namespace

int RunInBackground(const std::function<int(const std::function<void()>& go_there)>& body) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::FromErrno("cannot go to the background", errno);
  FileDescriptor here(ends[0], "pipe");
  FileDescriptor there(ends[1], "pipe");
  const Interrupt interrupt = Interrupt::FromSignals();
  const pid_t child = ::fork();
  if (child < 0) throw Error::FromErrno("cannot go to the background", errno);
  if (child > 0) {
    there = FileDescriptor();
    return AwaitWord(here, interrupt, child);
  }
  here = FileDescriptor();
  const int status = body([&] {
    LeaveTerminalAndStreams();
    [[maybe_unused]] const ssize_t written = ::write(there.number(), "r", 1);
    there = FileDescriptor();
  });
  ::_exit(status);
}

}  // namespace vmsave
