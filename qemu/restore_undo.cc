#include "qemu/restore_undo.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "io/private_directory.h"
#include "qemu/guest_pause.h"
#include "qemu/restore_record.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGraceForTerm{5};
constexpr std::chrono::seconds kGraceForAll{60};
constexpr std::chrono::minutes kPatience{10};  // disks may be slow to come to life
constexpr auto kPoll = std::chrono::milliseconds(20);

FileDescriptor OpenProcess(pid_t pid) {
  return {static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)), "pidfd"};
}

bool IsAlive(const FileDescriptor& process) {
  pollfd poller{process.number(), POLLIN, 0};
  return ::poll(&poller, 1, 0) == 0;
}

// `ended` and `send` of one process. Gives up after a while.
void EndProcess(const std::function<bool()>& ended, const std::function<void(int signal)>& send) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    if (ended()) return;
    send(signal);
    const auto deadline = Clock::now() + kGraceForTerm;
    while (!ended() && Clock::now() < deadline) std::this_thread::sleep_for(kPoll);
  }
}

void EndProcess(const FileDescriptor& process) {
  EndProcess([&] { return !IsAlive(process); },
             [&](int signal) { ::syscall(SYS_pidfd_send_signal, process.number(), signal, nullptr, 0); });
}

bool HasArgument(const std::filesystem::path& process, const std::string& argument) {
  std::ifstream file(process / "cmdline");
  for (std::string word; std::getline(file, word, '\0');) {
    if (word == argument) return true;
  }
  return false;
}

// Where the kernel has no pidfd (Linux < 5.3) its number has to do, looked at again each time.
void EndProcess(pid_t pid, const std::string& argument) {
  if (const FileDescriptor process = OpenProcess(pid); process.valid()) return EndProcess(process);
  const std::filesystem::path path = fmt::format("/proc/{}", pid);
  EndProcess([&] { return !HasArgument(path, argument); }, [pid](int signal) { ::kill(pid, signal); });
}

// A process that has not ended and has `argument`, which is not empty, in its command line; 0 where there is none.
pid_t FindProcess(const std::string& argument) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    const bool is_number = error == std::errc() && end == name.data() + name.size();
    if (is_number && HasArgument(entry.path(), argument)) return pid;
  }
  return 0;
}

class RestoreUndo {
 public:
  explicit RestoreUndo(GuardProcess::Legacy legacy)
      : record_(DecodeRestoreRecord(legacy.record)), held_(std::move(legacy.held)) {}

  void Run() {
    const std::string outcome = record_.released ? "" : record_.run ? Finish() : EndQemu();
    for (const std::string& path : record_.directories) RemovePrivateDirectory(path);
    if (!outcome.empty()) GuardProcess::Tell("vmrestore", "killed in the middle of a restore; " + outcome);
  }

 private:
  std::string Finish() const {
    const auto connection = std::ranges::find(held_, kLoadedQmpRole, &GuardProcess::Held::role);
    if (connection == held_.end()) return "the guest was loaded; QMP cont resumes it";
    try {
      const Interrupt never;
      QmpClient qmp(connection->descriptor, record_.qmp_socket, never);
      const QmpClient::Patience patience(qmp, kPatience);
      LetRun(qmp, *record_.run);
      return fmt::format("the guest was loaded, and {}", *record_.run ? "runs" : "is paused");
    } catch (const std::exception& error) {
      return fmt::format("the guest was loaded, but may stand still: {}; once QEMU answers again: QMP cont",
                         error.what());
    }
  }

  std::string EndQemu() const {
    if (record_.argument.empty()) return "no QEMU was started; one that waited for the guest is to be ended";
    for (const GuardProcess::Held& held : held_) {
      if (held.role == kProcessRole) EndProcess(held.descriptor);
    }
    // One that daemonizes, or that a launcher has started, is not its child; and while these end they may start more.
    const auto deadline = Clock::now() + kGraceForAll;
    while (const pid_t process = FindProcess(record_.argument)) {
      if (Clock::now() > deadline) return fmt::format("its QEMU does not end: kill process {}", process);
      EndProcess(process, record_.argument);
    }
    return "its QEMU was ended, and the image is as it was";
  }

  RestoreRecord record_;
  std::vector<GuardProcess::Held> held_;
};

}  // namespace

void UndoRestore(GuardProcess::Legacy legacy) {
  RestoreUndo(std::move(legacy)).Run();
}

}  // namespace vmsave
