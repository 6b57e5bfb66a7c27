#include "io/guard_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "format/printable.h"
#include "io/descriptor_message.h"

namespace vmsave {
namespace {

using Held = GuardProcess::Held;
using Legacy = GuardProcess::Legacy;

// The first byte of a message; the rest is the record or the role.
constexpr char kRecordPart = 'P';  // the rest of the record follows
constexpr char kRecord = 'R';
constexpr char kHold = 'H';
constexpr char kAccept = 'A';
constexpr char kLetGo = 'L';
constexpr char kQuieten = 'Q';
constexpr char kDismiss = 'D';

constexpr int kPatienceWithLegacyMs = 10'000;
constexpr std::size_t kMaxMessageBytes = std::size_t{32} << 10;

struct Message {
  char kind;
  std::string text;
  FileDescriptor descriptor;
};

// `room` is for the message as it comes, and is not empty. Nothing once the other process has ended.
std::optional<Message> Receive(const FileDescriptor& channel, std::span<char> room) {
  std::optional<DescriptorMessage> message = ReceiveWithDescriptor(channel, room);
  if (!message) return std::nullopt;
  return Message{message->text.front(), message->text.substr(1), std::move(message->descriptor)};
}

// One message, with a descriptor where `descriptor` >= 0. False where it does not arrive.
bool SendMessage(const FileDescriptor& channel, char kind, std::string_view text, int descriptor) {
  std::array<iovec, 2> parts{iovec{&kind, 1}, iovec{const_cast<char*>(text.data()), text.size()}};
  ssize_t sent = 0;
  do {
    sent = SendWithDescriptor(channel.number(), parts, descriptor);
  } while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

// The guard's side.
class Watch {
 public:
  explicit Watch(const FileDescriptor& channel) : channel_(channel) {}

  // What the other process leaves behind; nothing where it does not need us.
  std::optional<Legacy> AwaitLegacy() {
    while (true) {
      AcceptUntilMessage();
      std::optional<Message> message = Receive(channel_, room_);
      if (!message) break;
      if (message->kind == kDismiss) return std::nullopt;
      Take(*std::move(message));
    }
    if (legacy_.record.empty()) return std::nullopt;
    return std::move(legacy_);
  }

 private:
  void Take(Message message) {
    if (message.kind == kRecordPart) {
      coming_record_ += message.text;
    } else if (message.kind == kRecord) {
      legacy_.record = std::exchange(coming_record_, "") + message.text;
    } else if (message.kind == kLetGo) {
      std::erase_if(legacy_.held, [&](const Held& held) { return held.role == message.text; });
    } else if (message.kind == kQuieten) {
      GuardProcess::LetGoOfStandardError();
    } else if (!message.descriptor.valid()) {
      return;  // there was no room for one more: nothing to hold
    } else if (message.kind == kAccept) {
      const std::size_t space = message.text.find(' ');
      const auto count = static_cast<unsigned>(std::strtoul(message.text.c_str(), nullptr, 10));
      legacy_.held.push_back({message.text.substr(space + 1), std::move(message.descriptor), count});
    } else {
      legacy_.held.push_back({std::move(message.text), std::move(message.descriptor)});
    }
  }

  void AcceptUntilMessage() {
    while (true) {
      std::vector<pollfd> pollers{{channel_.number(), POLLIN, 0}};
      std::vector<std::size_t> listeners;
      for (std::size_t i = 0; i < legacy_.held.size(); ++i) {
        if (legacy_.held[i].accepts == 0) continue;
        pollers.push_back({legacy_.held[i].descriptor.number(), POLLIN, 0});
        listeners.push_back(i);
      }
      if (::poll(pollers.data(), pollers.size(), -1) < 0 && errno != EINTR) return;
      if (pollers.front().revents != 0) return;
      for (std::size_t i = 0; i < listeners.size(); ++i) {
        if (pollers[i + 1].revents != 0) Accept(listeners[i]);
      }
    }
  }

  void Accept(std::size_t listener) {
    --legacy_.held[listener].accepts;  // also where it fails: nobody is to wait for it for ever
    const int number = ::accept4(legacy_.held[listener].descriptor.number(), nullptr, nullptr, SOCK_CLOEXEC);
    if (number < 0) return;
    std::string role = legacy_.held[listener].role;
    legacy_.held.push_back({std::move(role), FileDescriptor(number, "a connection to hold")});
    SendMessage(channel_, kAccept, "", number);
  }

  const FileDescriptor& channel_;
  std::vector<char> room_ = std::vector<char>(kMaxMessageBytes);
  Legacy legacy_;
  std::string coming_record_;
};

// Who waits for the end of our standard output is not to wait for the guard.
void LeaveTerminal() {
  ::setsid();
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::close(null);
}

// False where the kernel cannot do it (Linux < 5.9).
bool CloseRange(unsigned first, unsigned last) {
  return first > last || ::close_range(first, last, 0) == 0;
}

std::vector<int> OpenDescriptors() {
  std::vector<int> numbers;
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; entry != end; entry.increment(error)) {
    numbers.push_back(std::atoi(entry->path().filename().c_str()));
  }
  return numbers;
}

// What the other process has inherited is not for the guard to keep: a shell's lock, a pipe whose end somebody awaits.
void CloseAllBut(const FileDescriptor& kept) {
  const auto number = static_cast<unsigned>(kept.number());
  if (CloseRange(STDERR_FILENO + 1, number - 1) && CloseRange(number + 1, ~0U)) return;
  for (const int open : OpenDescriptors()) {
    if (open > STDERR_FILENO && open != kept.number()) ::close(open);
  }
}

// While one lives no signal that can be blocked reaches this thread; nor, for good, the child of a fork meanwhile.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

// Needs a privilege, and need not be had: the guard is small, and seldom the one that the kernel chooses.
void AskToBeSparedWhenMemoryIsShort() {
  const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] const ssize_t written = ::write(file, "-1000", 5);
  ::close(file);
}

[[noreturn]] void Guard(const std::string& name, FileDescriptor channel, const GuardProcess::Undo& undo) noexcept {
  ::prctl(PR_SET_NAME, name.c_str());
  LeaveTerminal();
  CloseAllBut(channel);
  AskToBeSparedWhenMemoryIsShort();
  try {
    if (std::optional<Legacy> legacy = Watch(channel).AwaitLegacy()) {
      legacy->awaited = std::move(channel);
      undo(*std::move(legacy));
    }
  } catch (const std::exception& error) {
    GuardProcess::Tell(name, error.what());
  }
  ::_exit(0);
}

// Not where nobody reads it: a pipe that is full, a terminal that was stopped. A pipe that has room at all has it for
// PIPE_BUF bytes.
void WriteToStandardError(const std::string& line) {
  constexpr int kPatienceMs = 1000;
  pollfd stream{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&stream, 1, kPatienceMs) <= 0) return;
  [[maybe_unused]] const ssize_t written =
      ::write(STDERR_FILENO, line.data(), std::min<std::size_t>(line.size(), PIPE_BUF));
}

}  // namespace

void GuardProcess::Tell(const std::string& program, const std::string& message) noexcept {
  WriteToStandardError(Printable(program + ": " + message) + "\n");
  ::openlog(program.c_str(), LOG_PID, LOG_DAEMON);
  ::syslog(LOG_WARNING, "%s", message.c_str());
}

void GuardProcess::LetGoOfStandardError() noexcept {
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null < 0) return;
  ::dup2(null, STDERR_FILENO);
  ::close(null);
}

GuardProcess::GuardProcess(const std::string& name, const Undo& undo) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error::FromErrno("cannot make a socket for the guard process", errno);
  }
  channel_ = FileDescriptor(ends[0], "the guard process");
  FileDescriptor guards_end(ends[1], "the guarded process");
  const BlockedSignals from_the_beginning_on;
  pid_ = ::fork();
  if (pid_ < 0) throw Error::FromErrno("cannot start the guard process", errno);
  if (pid_ == 0) {
    channel_ = FileDescriptor();
    Guard(name, std::move(guards_end), undo);
  }
}

GuardProcess::~GuardProcess() {
  Dismiss();
}

void GuardProcess::Record(std::string_view record) noexcept {
  constexpr std::size_t kMaxPartBytes = kMaxMessageBytes - 1;
  const std::lock_guard lock(record_mutex_);
  for (; record.size() > kMaxPartBytes; record.remove_prefix(kMaxPartBytes)) {
    Send(kRecordPart, record.substr(0, kMaxPartBytes));
  }
  Send(kRecord, record);
}

void GuardProcess::Hold(std::string_view role, const FileDescriptor& descriptor) noexcept {
  Send(kHold, role, descriptor.number());
}

void GuardProcess::AcceptOn(std::string_view role, const FileDescriptor& listener, unsigned count) {
  Send(kAccept, fmt::format("{} {}", count, role), listener.number());
}

std::optional<FileDescriptor> GuardProcess::TakeConnection() {
  std::array<char, 1> kind{};  // a connection comes without a text
  std::optional<Message> message = Receive(channel_, kind);
  if (message) return std::move(message->descriptor);
  Abandon();
  return std::nullopt;
}

void GuardProcess::LetGo(std::string_view role) noexcept {
  Send(kLetGo, role);
}

void GuardProcess::Quieten() noexcept {
  Send(kQuieten, "");
}

void GuardProcess::Dismiss() noexcept {
  if (pid_ < 0) return;
  Send(kDismiss, "");
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

void GuardProcess::Leave() noexcept {
  const std::lock_guard lock(record_mutex_);
  ::shutdown(channel_.number(), SHUT_WR);
  pollfd guard{channel_.number(), POLLIN, 0};
  ::poll(&guard, 1, kPatienceWithLegacyMs);
  pid_ = -1;
  channel_ = FileDescriptor();
}

void GuardProcess::Send(char kind, std::string_view text, int descriptor) noexcept {
  if (pid_ < 0 || gone_ || SendMessage(channel_, kind, text, descriptor)) return;
  Abandon();
}

bool GuardProcess::gone() const noexcept {
  if (gone_) return true;
  pollfd poller{channel_.number(), 0, 0};
  return pid_ > 0 && ::poll(&poller, 1, 0) > 0;
}

void GuardProcess::Abandon() noexcept {
  gone_ = true;
  if (pid_ > 0) ::kill(pid_, SIGKILL);  // our child, and not reaped yet: nobody else has its number
}

}  // namespace vmsave
