#include "qemu/qemu_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <functional>
#include <limits>
#include <span>
#include <string_view>

#include "qemu/restore_guard.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

// "a=1,b=2,,3" -> {"a=1", "b=2,3"}: QEMU writes a comma in a value twice.
std::vector<std::string> SplitOptions(std::string_view text) {
  std::vector<std::string> options(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      options.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      options.back() += text[i++];
    } else {
      options.emplace_back();
    }
  }
  return options;
}

// The value of `key` in an option list whose first entry may leave the key out; the last one counts.
std::optional<std::string> OptionValue(std::string_view text, std::string_view key) {
  std::optional<std::string> value;
  const std::vector<std::string> options = SplitOptions(text);
  for (std::size_t i = 0; i < options.size(); ++i) {
    const std::string& option = options[i];
    const std::size_t equals = option.find('=');
    if (equals == std::string::npos) {
      if (i == 0 && !option.empty()) value = option;
    } else if (std::string_view(option).substr(0, equals) == key) {
      value = option.substr(equals + 1);
    }
  }
  return value;
}

// How far the unit of a size shifts its number; plain numbers of -m are MiB.
std::optional<unsigned> ShiftOfUnit(std::string_view unit) {
  constexpr std::string_view kUnits = "BKMGTPE";
  if (unit.empty()) return 20U;
  const auto upper = static_cast<char>(unit[0] >= 'a' && unit[0] <= 'z' ? unit[0] - 'a' + 'A' : unit[0]);
  const std::size_t power = kUnits.find(upper);
  if (unit.size() != 1 || power == std::string_view::npos) return std::nullopt;
  return static_cast<unsigned>(10 * power);
}

std::optional<ByteCount> ReadMemorySize(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  const std::optional<unsigned> shift = ShiftOfUnit(text.substr(static_cast<std::size_t>(end - text.data())));
  if (!shift || number == 0 || number > (std::numeric_limits<std::uint64_t>::max() >> *shift)) return std::nullopt;
  return ByteCount{number << *shift};
}

// The arguments of QEMU itself, without those of a launcher (`numactl -m 0 qemu-system-x86_64 ...`).
std::span<const std::string> QemuArguments(const std::vector<std::string>& command) {
  const auto is_qemu = [](const std::string& word) {
    const std::size_t slash = word.rfind('/');
    return std::string_view(word).substr(slash == std::string::npos ? 0 : slash + 1).starts_with("qemu-");
  };
  const auto program = std::find_if(command.begin(), command.end(), is_qemu);
  return {program == command.end() ? command.begin() : program, command.end()};
}

std::string DoubleCommas(std::string_view text) {
  std::string doubled;
  for (const char c : text) doubled.append(c == ',' ? 2 : 1, c);
  return doubled;
}

struct Pipe {
  explicit Pipe(const std::string& what_failed) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::FromErrno(what_failed, errno);
    read_end = FileDescriptor(ends[0], "pipe");
    write_end = FileDescriptor(ends[1], "pipe");
  }

  FileDescriptor read_end;
  FileDescriptor write_end;
};

void WriteByte(int pipe) {
  [[maybe_unused]] const ssize_t written = ::write(pipe, "g", 1);  // a child that has ended shows itself otherwise
}

// In the child, between fork and exec: only async-signal-safe calls.
//
// The child is not tied to the life of this process by PR_SET_PDEATHSIG: that lasts as long as the child does, so it
// would also end a guest that was released for good.
[[noreturn]] void ExecuteProgram(char* const* arguments, int go_pipe, int error_pipe, QemuProcess::Session session) {
  char go = 0;
  if (::read(go_pipe, &go, 1) != 1) ::_exit(127);  // the process that started us has ended, and nobody knows of us
  if (session == QemuProcess::Session::kOwn) ::setsid();
  UnblockSignals();
  ::execvp(arguments[0], arguments);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(error_pipe, &error, sizeof(error));
  ::_exit(127);
}

// The errno of a failed exec; 0 when the pipe was closed by a successful one.
int ReadExecError(int error_pipe) {
  int error = 0;
  ssize_t count = 0;
  do {
    count = ::read(error_pipe, &error, sizeof(error));
  } while (count < 0 && errno == EINTR);
  return count == static_cast<ssize_t>(sizeof(error)) ? error : 0;
}

// `on_fork` is called while the new process waits.
pid_t StartProgram(std::vector<std::string> command, QemuProcess::Session session,
                   const std::function<void(pid_t)>& on_fork) {
  const std::string what_failed = fmt::format("cannot start {}", command[0]);
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  Pipe errors(what_failed);
  Pipe go(what_failed);
  const pid_t pid = ::fork();
  if (pid < 0) throw Error::FromErrno(what_failed, errno);
  if (pid == 0) {
    ::close(go.write_end.number());
    ExecuteProgram(arguments.data(), go.read_end.number(), errors.write_end.number(), session);
  }
  errors.write_end.Close();
  on_fork(pid);
  WriteByte(go.write_end.number());
  const int error = ReadExecError(errors.read_end.number());
  if (error == 0) return pid;
  ::waitpid(pid, nullptr, 0);
  throw Error::FromErrno(what_failed, error, "is it installed, and is its name right?");
}

// The signal to pass on to QEMU when `interrupt` became readable; 0 for one that QEMU got itself.
int TakeSignal(const Interrupt& interrupt, QemuProcess::Session session) {
  signalfd_siginfo info{};
  const ssize_t count = ::read(interrupt.descriptor(), &info, sizeof(info));
  if (count < 0) return 0;
  if (count != static_cast<ssize_t>(sizeof(info))) return SIGTERM;  // not from a signal: a request to end
  const int signal = static_cast<int>(info.ssi_signo);
  const bool is_terminals = signal == SIGINT || signal == SIGQUIT;
  return is_terminals && session == QemuProcess::Session::kShared ? 0 : signal;
}

// How many lines end in what can be read now; -1 when the connection was closed.
std::ptrdiff_t LinesThatCame(int socket) {
  std::array<char, 4096> bytes;
  const ssize_t count = ::recv(socket, bytes.data(), bytes.size(), 0);
  return count > 0 ? std::count(bytes.begin(), bytes.begin() + count, '\n') : -1;
}

int ShellStatus(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

}  // namespace

CommandFacts ReadCommand(const std::vector<std::string>& command) {
  CommandFacts facts;
  const std::span<const std::string> arguments = QemuArguments(command);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string_view option = arguments[i];
    if (!option.starts_with('-')) continue;
    option.remove_prefix(option.starts_with("--") ? 2 : 1);
    if (option == "daemonize") facts.daemonizes = true;
    if (option == "incoming") facts.has_incoming = true;
    const bool is_machine = option == "machine" || option == "M";
    if ((!is_machine && option != "m") || i + 1 == arguments.size()) continue;
    // An option that is given again without the key leaves what was said before, as QEMU merges them.
    const std::optional<std::string> value = OptionValue(arguments[++i], is_machine ? "type" : "size");
    if (value && is_machine) facts.machine_type = value;
    if (value && !is_machine) facts.memory = ReadMemorySize(*value);
  }
  return facts;
}

QemuProcess::QemuProcess(const std::vector<std::string>& command, const Interrupt& interrupt, Session session,
                         RestoreGuard* guard)
    : interrupt_(interrupt),
      session_(session),
      guard_(guard),
      daemonizes_(ReadCommand(command).daemonizes),
      directory_(PrivateDirectory::Reach::kOwnUser,
                 guard == nullptr ? PrivateDirectory::Announce() : guard->AnnounceDirectory()),
      socket_path_(directory_.Path("qmp.sock")) {
  if (command.empty()) throw Error(ErrorKind::kUsage, "cannot start QEMU", "no command is given");
  program_ = command[0];
  std::vector<std::string> whole = command;
  const std::string qmp = fmt::format("unix:{},server=on,wait=off", DoubleCommas(socket_path_));
  whole.insert(whole.end(), {"-incoming", "defer", "-S", "-qmp", qmp});
  if (guard_ != nullptr) guard_->NoteArgument(qmp);
  pid_ = StartProgram(std::move(whole), session, [this](pid_t pid) { child_ = HoldForGuard(pid); });
}

QemuProcess::~QemuProcess() {
  if (released_) return;
  other_.End();  // first: a launcher that waits for it ends by itself then
  child_.End();
  Reap(/*wait=*/false);
}

HeldProcess QemuProcess::HoldForGuard(pid_t pid) const {
  HeldProcess process(pid);
  if (guard_ != nullptr) guard_->NoteProcess(process);
  return process;
}

// True once our child has ended.
bool QemuProcess::Reap(bool wait) {
  while (!reaped_) {
    const pid_t done = ::waitpid(pid_, &wait_status_, wait ? 0 : WNOHANG);
    if (done == 0) return false;
    if (done < 0 && errno == EINTR) continue;
    reaped_ = true;  // also where somebody else has taken its status (ECHILD): there is nothing left to wait for
  }
  return true;
}

void QemuProcess::KnowQemu(pid_t pid) {
  if (pid > 1 && pid != pid_) other_ = HoldForGuard(pid);
}

// A connection that has asked QEMU for an answer; not valid while nobody listens there.
FileDescriptor QemuProcess::TryConnect() const {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), socket_path_);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(&address.sun_path[0], socket_path_.data(), socket_path_.size());
  if (::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return {};
  constexpr std::string_view kRequest = "{\"execute\": \"qmp_capabilities\"}\n";
  const ssize_t sent = ::send(socket.number(), kRequest.data(), kRequest.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(kRequest.size())) return {};
  return socket;
}

void QemuProcess::ThrowEnded() const {
  const std::string why = WIFSIGNALED(wait_status_) ? fmt::format("it was ended by signal {}", WTERMSIG(wait_status_))
                                                    : fmt::format("it ended with status {}", WEXITSTATUS(wait_status_));
  throw Error(ErrorKind::kFailed, fmt::format("cannot start {}", program_), why,
              "its own message says why; does the command work without vmrestore?");
}

void QemuProcess::WaitReady(std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  FileDescriptor probe;
  std::ptrdiff_t lines = 0;
  while (true) {
    const bool child_ended = Reap(/*wait=*/false);
    if (child_ended && (!daemonizes_ || ShellStatus(wait_status_) != 0)) ThrowEnded();
    if (!probe.valid()) {
      probe = TryConnect();
      lines = 0;
    }
    // QEMU listens before it daemonizes, so nobody there means that the daemon has ended.
    if (!probe.valid() && child_ended) ThrowEnded();
    // The greeting comes early, from a thread of its own, and QEMU may still fail then. An answer to a command, the
    // second line, comes from its main loop, which runs once memory and devices are there.
    if (interrupt_.WaitReadable(probe.number(), /*timeout_ms=*/20)) {
      const std::ptrdiff_t more = LinesThatCame(probe.number());
      lines += more;
      if (lines >= 2) return KnowQemu(PeerPid(probe));
      if (more < 0) probe = {};
    }
    if (Clock::now() >= deadline) {
      throw Error(ErrorKind::kFailed, fmt::format("cannot start {}", program_),
                  fmt::format("it does not answer on its QMP socket after {} ms", timeout.count()));
    }
  }
}

void QemuProcess::Release() {
  released_ = true;
  if (guard_ != nullptr) guard_->NoteReleased();
}

void QemuProcess::ReleaseWithSocket() {
  released_ = true;
  directory_.Keep(true);
}

void QemuProcess::TakeBack() {
  released_ = false;
  directory_.Keep(false);
}

void QemuProcess::RemoveSocket() {
  directory_.Keep(false);
}

void QemuProcess::PassOnSignal() {
  const int signal = TakeSignal(interrupt_, session_);
  if (signal == 0) return;
  child_.Signal(signal);
  other_.Signal(signal);
}

int QemuProcess::WaitExit() {
  if (daemonizes_) Reap(/*wait=*/true);
  const FileDescriptor& child = child_.descriptor();
  while (!Reap(/*wait=*/false)) {
    std::array<pollfd, 2> set{pollfd{child.number(), POLLIN, 0}, pollfd{interrupt_.descriptor(), POLLIN, 0}};
    // Where the kernel has no descriptor of it, look often instead.
    if (::poll(set.data(), set.size(), child.valid() ? -1 : 100) <= 0 || set[1].revents == 0) continue;
    PassOnSignal();
  }
  return ShellStatus(wait_status_);
}

}  // namespace vmsave
