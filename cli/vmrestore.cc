// vmrestore: brings a saved guest back.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "cli/program.h"
#include "cli/restore_report.h"
#include "cli/restore_request.h"
#include "cli/text.h"
#include "io/background.h"
#include "io/guard_process.h"
#include "qemu/guest_facts.h"
#include "qemu/lazy_recovery.h"
#include "qemu/qemu_process.h"
#include "qemu/restore.h"
#include "qemu/restore_checks.h"
#include "qemu/restore_guard.h"
#include "reader/verify.h"
#include "reader/working_set_file.h"

namespace vmsave {
namespace {

// Before the image is read, which may take long; and which QEMU will do QmpClient cannot know.
void CheckSocketIsThere(const std::string& path, bool recover) {
  std::error_code error;
  if (std::filesystem::exists(path, error) || error) return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot connect to the guest at {}", path), "there is no such socket",
              recover ? "name a QMP socket of the QEMU that has the guest: ps shows it behind -qmp in QEMU's command"
                      : "start QEMU with -qmp unix:PATH,server=on,wait=off -incoming defer, and name that path");
}

void VerifyFirst(const Image& image, const RestoreRequest& request, const ReadOptions& read, Progress& progress,
                 const Interrupt& interrupt) {
  if (request.verify == "metadata") VerifyMetadata(image);
  if (request.verify == "full") VerifyAll(image, read, progress, interrupt);
}

// Either of them, in words and for scripts.
struct Report {
  std::string text;
  nlohmann::json json;
};

// QEMU shares the terminal, and what happens there, where its guest does not need this process.
QemuProcess::Session SessionOfQemu(const RestoreRequest& request) {
  const bool is_own = request.detach || !request.lazy.empty();
  return is_own ? QemuProcess::Session::kOwn : QemuProcess::Session::kShared;
}

// Where vmrestore goes once the guest runs, with --lazy --detach. Nobody reads standard error there.
class Background {
 public:
  Background() = default;
  explicit Background(std::function<void()> go_there) : go_there_(std::move(go_there)) {}

  void Go() {
    go_there_();
    is_there_ = true;
  }
  bool is_there() const { return is_there_; }
  void Tell(const std::string& text) const {
    if (is_there_) return GuardProcess::Tell("vmrestore", text);
    PrintLine(stderr, "vmrestore: " + text);
  }

 private:
  std::function<void()> go_there_;
  bool is_there_ = false;
};

class Program {
 public:
  // `process` is filled where a QEMU is started.
  Program(const RestoreRequest& request, const Interrupt& interrupt, RestoreGuard& guard, Progress& progress,
          std::optional<QemuProcess>& process, Background& background)
      : request_(request),
        interrupt_(interrupt),
        guard_(guard),
        progress_(progress),
        process_(process),
        background_(background),
        restore_(MakeRestoreOptions(request, ResolveTransfer("vmrestore", request.transfer))),
        image_(request.image) {}

  Report Restore() {
    CheckWish(image_, restore_.wish);
    if (request_.lazy == "yes" || request_.recover) RefuseNeverLazy(image_);
    if (request_.qmp) CheckSocketIsThere(*request_.qmp, request_.recover);
    if (!request_.command.empty()) CheckCommandFits(image_, ReadCommand(request_.command));
    VerifyFirst(image_, request_, restore_.wish.read, progress_, interrupt_);
    TellAssumedAlignment("vmrestore", image_, restore_.wish.read.cache);
    progress_.Begin("starting QEMU", ByteCount{0});
    if (!request_.command.empty()) StartQemu();
    Report report = request_.recover ? Recover() : BringBack();
    WarnIfGuardIsGone();
    return report;
  }

 private:
  Report BringBack() {
    QmpClient qmp(process_ ? process_->qmp_socket_path() : *request_.qmp, interrupt_);
    const bool lazily = !request_.lazy.empty() && CanBeLazy(qmp);
    return lazily ? Lazily(qmp) : Eagerly(qmp);
  }

  // Once.
  void WarnIfGuardIsGone(std::string_view consequence = "") {
    if (is_guards_loss_told_ || !guard_.gone()) return;
    is_guards_loss_told_ = true;
    background_.Tell(fmt::format("warning: its guard process was ended by somebody{}", consequence));
  }

  Report Eagerly(QmpClient& qmp) {
    const RestoreSummary summary = RestoreGuest(qmp, image_, restore_, progress_, interrupt_, &guard_);
    if (process_) process_->Release();
    guard_.NoteReleased();
    return {AsText(summary, GuestName()), AsJson(summary, request_.image)};
  }

  bool CanBeLazy(QmpClient& qmp) const {
    std::string why = WhyNeverLazy(image_);
    if (why.empty()) why = WhyNotLazy(qmp);
    if (why.empty()) return true;
    if (request_.lazy == "yes") {
      throw Error(ErrorKind::kFailed, fmt::format("cannot restore {} lazily", image_.path()), why,
                  "--lazy=auto restores as without it then");
    }
    PrintLine(stderr, fmt::format("vmrestore: not lazily: {}", why));
    return false;
  }

  Report Lazily(QmpClient& qmp) {
    LazyEvents events = EventsOfServing(qmp);
    bool lives = false;
    events.on_begun = [&] {
      if (process_) process_->ReleaseWithSocket();
      lives = true;
    };
    events.on_running = [this](const LazyStart& start) {
      guard_.NoteStarted();
      TellStart(start);
      if (!request_.detach) return;
      guard_.NoteInBackground();
      background_.Go();
    };
    const std::optional<WorkingSet> known = KnownWorkingSet();
    events.serving.on_needed_first = [&](const std::vector<WorkChunk>& needed) {
      if (request_.no_record || needed.empty()) return;
      WriteWorkingSet(image_, Extended(image_, known, needed));  // not told: images lie where nobody writes, too
    };
    const LazyOptions lazy = MakeLazyOptions(known);
    events.on_refused = [&] {
      if (!process_) return;
      process_->TakeBack();
      lives = false;
    };
    std::vector<SpareChannel> spares;
    const LazySummary summary = LeavingToGuard(lives, [&] {
      return RestoreLazily({qmp, spares, image_, lazy, events, progress_, interrupt_});
    });
    if (process_) process_->RemoveSocket();
    return Done(summary);
  }

  Report Done(const LazySummary& summary) {
    guard_.NoteReleased();
    if (!summary.unfinished.empty()) PrintLine(stderr, fmt::format("vmrestore: warning: {}", summary.unfinished));
    return {AsText(summary, GuestName()), AsJson(summary, request_.image)};
  }

  LazyOptions MakeLazyOptions(const std::optional<WorkingSet>& known) const {
    LazyOptions lazy{MakeServeOptions(request_, restore_.wish), restore_.run, {}};
    if (known) lazy.expected = ChunksOf(image_, *known);
    return lazy;
  }

  // It makes the restore faster, and no restore fails for want of it.
  std::optional<WorkingSet> KnownWorkingSet() const {
    try {
      return ReadWorkingSet(image_);
    } catch (const Error& error) {
      PrintLine(stderr, fmt::format("vmrestore: the working set is not used: {}", error.what()));
      return std::nullopt;
    }
  }

  Report Recover() {
    bool lives = false;
    std::optional<KeptServing> kept = LeavingToGuard(lives, [&] {
      return TakeKept(*request_.qmp, [&](const KeptServing& held) {
        guard_.NoteKept(held);
        lives = true;
      });
    });
    guard_.NoteTaken();
    return Done(kept ? RecoverOver(*std::move(kept)) : RecoverOverSocket());
  }

  LazySummary RecoverOverSocket() {
    QmpClient qmp(*request_.qmp, interrupt_);
    bool lives = false;
    const LazyOptions lazy = MakeLazyOptions(KnownWorkingSet());
    LazyEvents events = EventsOfRecovery(qmp);
    events.on_begin = [note = events.on_begin, &lives](const LazyBegin& begin) {
      note(begin);
      lives = true;
    };
    std::vector<SpareChannel> spares;
    return LeavingToGuard(lives, [&] {
      return RecoverLazily({qmp, spares, image_, lazy, events, progress_, interrupt_});
    });
  }

  LazySummary RecoverOver(KeptServing kept) {
    const ServingRecord& serving = *kept.record.serving;
    LazyOptions lazy = MakeLazyOptions(KnownWorkingSet());
    if (!lazy.run) lazy.run = serving.run;
    LazySummary summary = LeavingToGuard(/*lives=*/true, [&] {
      QmpClient qmp = Reconnect(kept, interrupt_);
      const LazyEvents events = EventsOfRecovery(qmp);
      return RecoverKept({qmp, kept.spares, image_, lazy, events, progress_, interrupt_}, serving);
    });
    for (const std::string& path : kept.record.directories) RemovePrivateDirectory(path);
    return summary;
  }

  LazyEvents EventsOfRecovery(const QmpClient& qmp) {
    LazyEvents events = EventsOfServing(qmp);
    events.on_running = [this](const LazyStart& start) {
      guard_.NoteStarted();
      TellStart(start);
    };
    return events;
  }

  // The guard has what it needs to go on.
  LazyEvents EventsOfServing(const QmpClient& qmp) {
    LazyEvents events;
    events.on_spares = [this](std::span<const SpareChannel> spares) { guard_.NoteSpares(spares); };
    events.on_spare_used = [this](const std::string& name) { guard_.NoteSpareUsed(name); };
    events.on_begin = [this, &qmp](const LazyBegin& begin) {
      const ServeOptions serve = MakeServeOptions(request_, restore_.wish);
      guard_.NoteServing(qmp, MakeServingRecord(image_, serve, begin, qmp));
    };
    events.serving.on_interrupt = [this, asked = 0]() mutable { return GoOnServing(++asked); };
    events.serving.on_look = [this] { WarnIfGuardIsGone(": without vmrestore the guest would stand still now"); };
    return events;
  }

  // A guest that lives and is not served any more is kept within reach of --recover.
  template <class Work>
  std::invoke_result_t<Work> LeavingToGuard(const bool& lives, const Work& work) {
    try {
      return work();
    } catch (const UnservedError&) {
      guard_.NoteUnserved(/*operator_is_told=*/true);
      throw;
    } catch (const std::exception&) {
      if (lives) guard_.NoteUnserved(/*operator_is_told=*/false);
      throw;
    }
  }

  void TellStart(const LazyStart& start) const {
    if (ParseProgressStyle(request_.progress) == ProgressStyle::kJson) {
      return PrintJsonLine({{request_.detach ? "completed" : "started",
                             {{"running", start.running}, {"seconds", start.elapsed.count()}}}});
    }
    PrintLine(stderr, fmt::format("{} is {} after {}, its memory comes behind it", GuestName(),
                                  start.running ? "running" : "paused", FormatSeconds(start.elapsed.count())));
  }

  // A QEMU that was started here gets the operator's wish, and ends as it does in an eager restore. One that is to stay
  // would stand still for want of memory.
  bool GoOnServing(int asked) {
    if (process_ && !request_.detach) {
      process_->PassOnSignal();
      return true;
    }
    interrupt_.Take();
    if (asked > 1) return false;
    const std::string socket = process_ ? process_->qmp_socket_path() : *request_.qmp;
    background_.Tell(
        fmt::format("the guest still needs its image and is served on; interrupted again, it will stand "
                    "still until: {}",
                    RecoverCommand(socket, request_.image)));
    return true;
  }

  std::string GuestName() const {
    const std::string name = ReadDescription(image_.description()).name;
    return name.empty() ? "guest" : name;
  }

  // However long QEMU takes (some allocate all of the guest's RAM first): the operator sees it, and can end it.
  void StartQemu() {
    process_.emplace(request_.command, interrupt_, SessionOfQemu(request_), &guard_).WaitReady(std::chrono::hours(24));
  }

  const RestoreRequest& request_;
  const Interrupt& interrupt_;
  RestoreGuard& guard_;
  Progress& progress_;
  std::optional<QemuProcess>& process_;
  Background& background_;
  RestoreOptions restore_;
  Image image_;
  bool is_guards_loss_told_ = false;
};

int Restore(const RestoreRequest& request, Background& background) {
  const Interrupt interrupt = Interrupt::FromSignals();
  const bool stops_with_qemu = !request.qmp && SessionOfQemu(request) == QemuProcess::Session::kShared;
  if (!stops_with_qemu) HoldOffJobControl();
  RestoreGuard guard;  // before the first thread
  const ProgressStyle style = ParseProgressStyle(request.progress);
  Progress progress;
  std::optional<QemuProcess> process;
  const auto restore = [&] {
    Program program(request, interrupt, guard, progress, process, background);
    const Report report = ShowProgress(progress, style, [&] { return program.Restore(); });
    if (background.is_there()) {
      background.Tell(report.text);
    } else if (style != ProgressStyle::kJson) {
      PrintLine(stderr, report.text);
    }
    return report.json;
  };
  const auto wait_exit = [&] { return process && !request.detach ? process->WaitExit() : 0; };
  try {
    ReportOutcome(progress, style, restore);
  } catch (const UntoldOutcome&) {
    wait_exit();  // its guest runs
    throw;
  }
  return wait_exit();
}

int RestoreAndLeave(const RestoreRequest& request) {
  return RunInBackground([&](const std::function<void()>& go_there) {
    Background background(go_there);
    return RunProgram("vmrestore", [&] {
      try {
        return Restore(request, background);
      } catch (const std::exception& error) {
        if (background.is_there()) background.Tell(error.what());
        throw;
      }
    });
  });
}

int Main(int argc, char** argv) {
  const std::optional<RestoreRequest> request = ParseRestoreRequest(argc, argv);
  if (!request) return 0;
  if (request->detach && !request->lazy.empty()) return RestoreAndLeave(*request);
  Background nowhere;
  return Restore(*request, nowhere);
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmrestore", [&] { return vmsave::Main(argc, argv); });
}
