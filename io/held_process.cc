#include "io/held_process.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGrace{5};
constexpr int kPollMs = 10;

FileDescriptor OpenPidfd(pid_t pid) {
  return {static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)), "a process"};
}

// In ticks since the machine's start; 0 where there is no such process, or only what is left for its parent. See
// proc(5), /proc/PID/stat; the name of its program, which may hold anything, ends with the last parenthesis.
std::uint64_t StartOf(pid_t pid) {
  constexpr int kFieldsBetween = 18;  // from its state, which is the third field, to its start, the 22nd
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  char state = 0;
  fields >> state;
  std::string passed_over;
  for (int i = 0; i < kFieldsBetween; ++i) fields >> passed_over;
  std::uint64_t started = 0;
  fields >> started;
  return state == 'Z' || state == 'X' ? 0 : started;
}

}  // namespace

HeldProcess::HeldProcess(pid_t pid) : pid_(pid) {
  if (pid <= 0) return;
  pidfd_ = OpenPidfd(pid);
  if (!pidfd_.valid()) started_ = StartOf(pid);
}

bool HeldProcess::HasEnded() const {
  if (!pidfd_.valid()) return started_ == 0 || StartOf(pid_) != started_;
  pollfd poller{pidfd_.number(), POLLIN, 0};
  return ::poll(&poller, 1, 0) > 0;
}

bool HeldProcess::AwaitEnd(std::chrono::milliseconds timeout) const {
  const auto deadline = Clock::now() + timeout;
  while (!HasEnded()) {
    if (Clock::now() >= deadline) return false;
    pollfd poller{pidfd_.number(), POLLIN, 0};  // poll(2) passes over one that is not valid
    ::poll(&poller, 1, kPollMs);
  }
  return true;
}

void HeldProcess::Signal(int signal) const {
  if (pidfd_.valid()) {
    ::syscall(SYS_pidfd_send_signal, pidfd_.number(), signal, nullptr, 0);
  } else if (!HasEnded()) {
    ::kill(pid_, signal);
  }
}

bool HeldProcess::End() const {
  for (const int signal : {SIGTERM, SIGKILL}) {
    Signal(signal);
    if (AwaitEnd(kGrace)) return true;
  }
  return false;
}

pid_t PeerPid(const FileDescriptor& socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket.number(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    throw Error::FromErrno(fmt::format("cannot tell who is on the other end of {}", socket.name()), errno);
  }
  return peer.pid;
}

}  // namespace vmsave
