#include "qemu/restore_undo.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "io/held_process.h"
#include "io/private_directory.h"
#include "qemu/guest_pause.h"
#include "qemu/restore_record.h"
#include "qemu/serving.h"
#include "qemu/unserved_guest.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGraceForAll{60};
constexpr std::string_view kKilled = "killed in the middle of a restore";

bool HasArgument(pid_t process, const std::string& argument) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", process));
  for (std::string word; std::getline(file, word, '\0');) {
    if (word == argument) return true;
  }
  return false;
}

// A process that has not ended and has `argument`, which is not empty, in its command line; 0 where there is none.
pid_t FindProcess(const std::string& argument) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    const bool is_number = error == std::errc() && end == name.data() + name.size();
    if (is_number && HasArgument(pid, argument)) return pid;
  }
  return 0;
}

class RestoreUndo {
 public:
  explicit RestoreUndo(GuardProcess::Legacy legacy)
      : record_(DecodeRestoreRecord(legacy.record)),
        held_(std::move(legacy.held)),
        awaited_(std::move(legacy.awaited)) {}

  void Run() {
    bool are_sockets_needed = false;
    if (!record_.released && record_.serving) {
      are_sockets_needed = SeeToServing();
    } else if (!record_.released) {
      Tell(record_.run ? Finish() : EndQemu());
    }
    if (are_sockets_needed) return;
    for (const std::string& path : record_.directories) RemovePrivateDirectory(path);
  }

 private:
  // Whether somebody else goes on with it.
  bool SeeToServing() {
    UnservedGuest guest(TakeKept());
    if (!guest.is_held()) {
      Tell(fmt::format("the guest stands still where it needs a page: {} goes on", HowToGoOn()));
      return true;
    }
    guest.FinishTaking();
    const std::string outcome = record_.unserved ? "" : guest.ServeOn([this] { TellServedOn(); });
    if (!guest.needs_operator()) {
      Tell(outcome);
      return false;
    }
    return Keep(guest, outcome);
  }

  bool Keep(const UnservedGuest& guest, const std::string& outcome) {
    try {
      KeptListener listener(record_.qmp_socket);
      const KeptEnd end = guest.Keep(listener, [&] {  // who hears of it finds it there
        if (record_.unserved && !record_.operator_is_told && !guest.has_ended()) TellHowToGoOn();
        Tell(outcome);
        awaited_.Close();
        GuardProcess::LetGoOfStandardError();
      });
      return end != KeptEnd::kQemuEnded;
    } catch (const Error& error) {
      if (guest.has_ended()) return false;
      Tell(fmt::format("nobody can go on with the guest: {}{}{}", error.what(), outcome.empty() ? "" : "; ", outcome));
      return true;
    }
  }

  KeptServing TakeKept() {
    KeptServing kept{.record = record_};
    for (GuardProcess::Held& held : std::exchange(held_, {})) {
      if (held.role == kLoadedQmpRole) {
        kept.qmp = std::move(held.descriptor);
      } else if (held.role == kHandOverRole) {
        kept.hand_over = std::move(held.descriptor);
      } else if (held.role != kProcessRole) {
        kept.spares.push_back({std::move(held.role), std::move(held.descriptor)});
      }
    }
    return kept;
  }

  std::string HowToGoOn() const { return RecoverCommand(record_.qmp_socket, record_.serving->image); }

  void TellHowToGoOn() const {
    GuardProcess::Tell("vmrestore",
                       fmt::format("the guest is there still, and needs its image: {} goes on", HowToGoOn()));
  }

  // QEMU says that its migration is paused, which looks like the guest's end.
  void TellServedOn() const {
    GuardProcess::Tell("vmrestore",
                       fmt::format("{}; its guard (pid {}) serves the guest on from {}, whatever QEMU says of a paused "
                                   "migration",
                                   kKilled, ::getpid(), record_.serving->image));
  }

  // QEMU can be talked to again, however long the telling takes.
  void Tell(const std::string& outcome) {
    held_.clear();
    if (!outcome.empty()) GuardProcess::Tell("vmrestore", fmt::format("{}; {}", kKilled, outcome));
  }

  std::string Finish() const {
    const auto connection = std::ranges::find(held_, kLoadedQmpRole, &GuardProcess::Held::role);
    if (connection == held_.end()) return "the guest was loaded; QMP cont resumes it";
    try {
      const Interrupt never;
      QmpClient qmp(connection->descriptor, record_.qmp_socket, never);
      const QmpClient::Patience patience(qmp, kPatienceWithDisks);
      LetRun(qmp, *record_.run);
      return fmt::format("the guest was loaded, and {}", *record_.run ? "runs" : "is paused");
    } catch (const std::exception& error) {
      return fmt::format("the guest was loaded, but may stand still: {}; once QEMU answers again: QMP cont",
                         error.what());
    }
  }

  std::string EndQemu() {
    if (record_.argument.empty()) return "no QEMU was started; one that waited for the guest is to be ended";
    for (GuardProcess::Held& held : held_) {
      if (held.role == kProcessRole) HeldProcess(std::move(held.descriptor)).End();
    }
    // One that daemonizes, or that a launcher has started, is not its child; and while these end they may start more.
    const auto deadline = Clock::now() + kGraceForAll;
    while (const pid_t pid = FindProcess(record_.argument)) {
      if (Clock::now() > deadline) return fmt::format("its QEMU does not end: kill process {}", pid);
      const HeldProcess process(pid);
      if (HasArgument(pid, record_.argument)) process.End();  // else it has ended, and another has its number
    }
    return "its QEMU was ended, and the image is as it was";
  }

  RestoreRecord record_;
  std::vector<GuardProcess::Held> held_;
  FileDescriptor awaited_;  // by vmrestore, where that has left
};

}  // namespace

void UndoRestore(GuardProcess::Legacy legacy) {
  RestoreUndo(std::move(legacy)).Run();
}

}  // namespace vmsave
