#include "qemu/restore_undo.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "io/held_process.h"
#include "io/private_directory.h"
#include "qemu/guest_facts.h"
#include "qemu/guest_pause.h"
#include "qemu/lazy_recovery.h"
#include "qemu/restore_record.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGraceForAll{60};

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
      : record_(DecodeRestoreRecord(legacy.record)), held_(std::move(legacy.held)) {}

  void Run() {
    const std::string outcome = record_.released  ? ""
                                : record_.serving ? ServeOn()
                                : record_.run     ? Finish()
                                                  : EndQemu();
    if (!sockets_needed_) {
      for (const std::string& path : record_.directories) RemovePrivateDirectory(path);
    }
    held_.clear();  // QEMU can be talked to again, however long the telling takes
    if (!outcome.empty()) GuardProcess::Tell("vmrestore", "killed in the middle of a restore; " + outcome);
  }

 private:
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

  // Until the guest has all of its memory.
  std::string ServeOn() {
    const ServingRecord& serving = *record_.serving;
    try {
      const auto connection = std::ranges::find(held_, kLoadedQmpRole, &GuardProcess::Held::role);
      if (connection == held_.end()) return "";
      const Interrupt never;
      QmpClient qmp(connection->descriptor, record_.qmp_socket, never);
      if (AwaitSettled(qmp) == "completed") {
        if (serving.run) LetRun(qmp, *serving.run);
        FinishLazily(qmp);
        return "the guest had all of its memory";
      }
      Progress nobody_looks;
      const Image image(serving.image);
      LazyEvents events;
      events.on_running = [](const LazyStart&) {};
      const LazySummary summary = RecoverLazily(qmp, image, OptionsOf(serving), events, nobody_looks, never);
      return summary.outcome.guest_ended ? "its guard served the guest on until that ended"
                                         : "its guard served the guest on, which has all of its memory now";
    } catch (const std::exception& error) {
      if (const std::string ended = WhyEnded(); !ended.empty()) return ended;
      sockets_needed_ = true;
      return fmt::format("the guest stands still: {}; vmrestore --recover --qmp {} {} goes on", error.what(),
                         record_.qmp_socket, serving.image);
    }
  }

  // QEMU gives up by itself where it was not given all of the devices.
  std::string WhyEnded() {
    try {
      const Interrupt never;
      const QmpClient qmp(record_.qmp_socket, never);
      return "";
    } catch (const std::exception&) {
      const bool is_there = !record_.argument.empty() && FindProcess(record_.argument) != 0;
      return is_there ? "" : "its QEMU has ended, and the image is as it was";
    }
  }

  // What QEMU makes of the end of its server: it has all that it needs, or waits for more.
  static std::string AwaitSettled(QmpClient& qmp) {
    const auto deadline = Clock::now() + kGraceForAll;
    while (true) {
      std::string status = QueryMigrationStatus(qmp);
      if (status == "completed" || status == "postcopy-paused" || Clock::now() > deadline) return status;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  static LazyOptions OptionsOf(const ServingRecord& serving) {
    LazyOptions options;
    options.serve.read = {serving.channels, serving.uring ? EngineKind::kUring : EngineKind::kSync,
                          serving.bypass_cache ? CacheUse::kBypass : CacheUse::kPageCache};
    options.serve.checks = serving.check_pages ? PageChecks::kOn : PageChecks::kOff;
    options.serve.fill.on = serving.fill;
    if (serving.fill_rate != 0) options.serve.fill.rate = ByteCount{serving.fill_rate};
    options.run = serving.run;
    return options;
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
  bool sockets_needed_ = false;
};

}  // namespace

void UndoRestore(GuardProcess::Legacy legacy) {
  RestoreUndo(std::move(legacy)).Run();
}

}  // namespace vmsave
