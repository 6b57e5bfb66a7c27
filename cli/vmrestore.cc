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

struct Options {
  std::string image;
  std::optional<std::string> qmp;
  std::vector<std::string> command;
  std::string via = "auto";
  std::string verify = "metadata";
  bool running = false;
  bool paused = false;
  bool detach = false;
  bool recover = false;
  bool no_record = false;
  std::string lazy;  // empty, "yes" or "auto"
  std::string fill = "on";
  std::optional<ByteCount> fill_rate;
  TransferOptions transfer;
  std::string progress = "auto";
};

ByteCount ParseFillRate(const std::string& text) {
  const ByteCount rate = ParseBytes(text, "--fill-rate");
  if (rate >= kPageSize) return rate;
  throw UsageError("--fill-rate", fmt::format("\"{}\" is less than a page (4K) per second", text), "or --fill off");
}

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("IMAGE", options.image, "the image to restore");
  app.add_option("--qmp", options.qmp, "QMP unix socket of a QEMU that waits with -incoming defer")
      ->type_name("SOCKET");
  app.add_option("--via", options.via,
                 "How RAM gets into QEMU: memory (shared RAM, read straight into it), native (QEMU reads the image), "
                 "multifd (parallel channels into QEMU), stream (any QEMU), or auto (default), the first that works")
      ->check(OneOf({"auto", "memory", "native", "multifd", "stream"}))
      ->type_name("WAY");
  app.add_flag("--lazy{yes}", options.lazy,
               "The guest runs at once; its RAM is read as it needs it, and the rest behind that. auto: where QEMU and "
               "this host can do it, else as without")
      ->check(OneOf({"yes", "auto"}))
      ->disable_flag_override(false)
      ->type_name("[=WHEN]");
  app.add_flag("--no-record", options.no_record,
               "With --lazy: do not note in IMAGE.ws what the guest needs first, for the next time");
  app.add_flag("--recover", options.recover,
               "Go on with a guest that was restored with --lazy, and whose vmrestore is there no more");
  app.add_option(
         "--fill", options.fill,
         "With --lazy: on (default), or off: nothing is read before the guest needs it, for as long as it lives")
      ->check(OneOf({"on", "off"}))
      ->type_name("WHETHER");
  app.add_option_function<std::string>(
         "--fill-rate", [&options](const std::string& text) { options.fill_rate = ParseFillRate(text); },
         "With --lazy: read at most so many bytes per second ahead of the guest (50M, 1G)")
      ->type_name("BYTES");
  app.add_option("--verify", options.verify,
                 "metadata (default: all but the pages first, pages on their way), full (everything first) or off")
      ->check(OneOf({"metadata", "full", "off"}))
      ->type_name("WHAT");
  app.add_flag("--running", options.running, "Resume the guest even if it was paused when saved");
  app.add_flag("--paused", options.paused, "Leave the guest paused");
  app.add_flag("--detach", options.detach, "Return as soon as the guest is restored; QEMU stays");
  AddTransferOptions(app, options.transfer);
  AddProgressOption(app, options.progress);
}

// Parses what stands before "--", and takes what follows it as it is. False where the program is to end.
bool ParseCommandLine(CLI::App& app, int argc, char** argv, Options& options) {
  char** const end = argv + argc;
  char** const separator = std::find(argv, end, std::string_view("--"));
  if (separator != end) options.command.assign(separator + 1, end);
  const char* const stray = separator != end ? "unexpected argument" : "-- is missing before the QEMU command";
  app.prefix_command();  // an argument too many is a command without its "--", whose options are not ours
  return ParseOptions(app, static_cast<int>(separator - argv), argv, stray);
}

void CheckOptions(const CLI::App& app, const Options& options) {
  RefuseTogether(app, {"--running", "--paused"});
  RefuseTogether(app, {"--qmp", "--detach"});
  RefuseTogether(app, {"--lazy", "--via"});
  RefuseTogether(app, {"--fill", "--fill-rate"});
  for (const char* option : {"--fill", "--fill-rate"}) {
    if (app.count(option) != 0 && options.lazy.empty() && !options.recover) {
      throw UsageError(option, "it is for --lazy and --recover alone");
    }
  }
  if (options.no_record && options.lazy.empty()) throw UsageError("--no-record", "it is for --lazy alone");
  RefuseTogether(app, {"--recover", "--lazy"});
  RefuseTogether(app, {"--recover", "--via"});
  if (options.recover && !options.command.empty()) {
    throw UsageError("--recover and a QEMU command", "the guest is in its QEMU already", "name it by --qmp SOCKET");
  }
  if (options.qmp && !options.command.empty()) {
    throw UsageError("--qmp and a QEMU command", "only one of them can be given");
  }
  if (!options.qmp && options.command.empty()) {
    throw UsageError("no QEMU is named", "give -- and the QEMU command behind IMAGE, or --qmp SOCKET");
  }
}

// Before the image is read, which may take long; and no QEMU will do but one that waits, as QmpClient cannot know.
void CheckSocketIsThere(const std::string& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error) || error) return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot connect to the guest at {}", path), "there is no such socket",
              "start QEMU with -qmp unix:PATH,server=on,wait=off -incoming defer, and name that path");
}

RestoreOptions MakeRestoreOptions(const Options& options, const Transfer& transfer) {
  RestoreOptions restore;
  for (const RestoreWay way : {RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kMultifd, RestoreWay::kStream}) {
    if (options.via == RestoreWayName(way)) restore.wish.way = way;
  }
  restore.wish.read = {transfer.channels, transfer.engine, transfer.cache};
  restore.wish.pages_verified = options.verify == "full";
  restore.wish.checks = options.verify == "off" ? PageChecks::kOff : PageChecks::kOn;
  if (options.running) restore.run = true;
  if (options.paused) restore.run = false;
  return restore;
}

ServeOptions MakeServeOptions(const Options& options, const RestoreWish& wish) {
  return {wish.read, wish.checks, {options.fill == "on", options.fill_rate}};
}

void VerifyFirst(const Image& image, const Options& options, const ReadOptions& read, Progress& progress,
                 const Interrupt& interrupt) {
  if (options.verify == "metadata") VerifyMetadata(image);
  if (options.verify == "full") VerifyAll(image, read, progress, interrupt);
}

// Either of them, in words and for scripts.
struct Report {
  std::string text;
  nlohmann::json json;
};

class Program {
 public:
  // `process` is filled where a QEMU is started.
  Program(const Options& options, const Interrupt& interrupt, RestoreGuard& guard, Progress& progress,
          std::optional<QemuProcess>& process, const std::function<void()>& go_to_background)
      : options_(options),
        interrupt_(interrupt),
        guard_(guard),
        progress_(progress),
        process_(process),
        go_to_background_(go_to_background),
        restore_(MakeRestoreOptions(options, ResolveTransfer("vmrestore", options.transfer))),
        image_(options.image) {}

  Report Restore() {
    CheckWish(image_, restore_.wish);
    if (options_.lazy == "yes" || options_.recover) RefuseNeverLazy(image_);
    if (options_.qmp) CheckSocketIsThere(*options_.qmp);
    if (!options_.command.empty()) CheckCommandFits(image_, ReadCommand(options_.command));
    VerifyFirst(image_, options_, restore_.wish.read, progress_, interrupt_);
    TellAssumedAlignment("vmrestore", image_, restore_.wish.read.cache);
    progress_.Begin("starting QEMU", ByteCount{0});
    if (!options_.command.empty()) StartQemu();
    if (options_.recover) return Recover();
    QmpClient qmp(process_ ? process_->qmp_socket_path() : *options_.qmp, interrupt_);
    const bool lazily = !options_.lazy.empty() && CanBeLazy(qmp);
    return lazily ? RestoreLazily(qmp) : RestoreEagerly(qmp);
  }

 private:
  Report RestoreEagerly(QmpClient& qmp) {
    const RestoreSummary summary = RestoreGuest(qmp, image_, restore_, progress_, interrupt_, &guard_);
    if (process_) process_->Release();
    guard_.NoteReleased();
    return {AsText(summary, GuestName()), AsJson(summary, options_.image)};
  }

  bool CanBeLazy(QmpClient& qmp) const {
    std::string why = WhyNeverLazy(image_);
    if (why.empty()) why = WhyNotLazy(qmp);
    if (why.empty()) return true;
    if (options_.lazy == "yes") {
      throw Error(ErrorKind::kFailed, fmt::format("cannot restore {} lazily", image_.path()), why,
                  "--lazy=auto restores as without it then");
    }
    PrintLine(stderr, fmt::format("vmrestore: not lazily: {}", why));
    return false;
  }

  Report RestoreLazily(QmpClient& qmp) {
    LazyEvents events = EventsOfServing(qmp);
    bool lives = false;
    events.on_begun = [&] {
      if (process_) process_->ReleaseWithSocket();
      lives = true;
    };
    events.on_running = [this](const LazyStart& start) {
      guard_.NoteStarted();
      TellStart(start);
      if (!options_.detach) return;
      guard_.NoteInBackground();
      go_to_background_();
    };
    const std::optional<WorkingSet> known = KnownWorkingSet();
    events.serving.on_needed_first = [&](const std::vector<WorkChunk>& needed) {
      if (!options_.no_record) RecordWorkingSet(known, needed);
    };
    const LazyOptions lazy = MakeLazyOptions(known);
    std::vector<SpareChannel> spares;
    const LazySummary summary = LeavingToGuard(lives, [&] {
      return vmsave::RestoreLazily({qmp, spares, image_, lazy, events, progress_, interrupt_});
    });
    if (process_) process_->RemoveSocket();
    return Done(summary);
  }

  Report Done(const LazySummary& summary) {
    guard_.NoteReleased();
    if (!summary.unfinished.empty()) PrintLine(stderr, fmt::format("vmrestore: warning: {}", summary.unfinished));
    return {AsText(summary, GuestName()), AsJson(summary, options_.image)};
  }

  LazyOptions MakeLazyOptions(const std::optional<WorkingSet>& known) const {
    LazyOptions lazy{MakeServeOptions(options_, restore_.wish), restore_.run, {}};
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

  // Not told where it cannot be written: images lie in places that are only read, too.
  void RecordWorkingSet(const std::optional<WorkingSet>& known, const std::vector<WorkChunk>& demanded) const {
    if (demanded.empty()) return;
    try {
      WriteWorkingSet(image_, Extended(image_, known, demanded));
    } catch (const Error&) {
      return;
    }
  }

  Report Recover() {
    bool lives = false;
    std::optional<KeptServing> kept = LeavingToGuard(lives, [&] {
      return TakeKept(*options_.qmp, [&](const KeptServing& held) {
        guard_.NoteKept(held);
        lives = true;
      });
    });
    guard_.NoteTaken();
    return Done(kept ? RecoverKept(*std::move(kept)) : RecoverLeft());
  }

  LazySummary RecoverLeft() {
    QmpClient qmp(*options_.qmp, interrupt_);
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

  LazySummary RecoverKept(KeptServing kept) {
    const ServingRecord& serving = *kept.record.serving;
    LazyOptions lazy = MakeLazyOptions(KnownWorkingSet());
    if (!lazy.run) lazy.run = serving.run;
    const LazySummary summary = LeavingToGuard(/*lives=*/true, [&] {
      QmpClient qmp = Reconnect(kept, interrupt_);
      const LazyEvents events = EventsOfRecovery(qmp);
      return vmsave::RecoverKept({qmp, kept.spares, image_, lazy, events, progress_, interrupt_}, serving);
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
      const ServeOptions serve = MakeServeOptions(options_, restore_.wish);
      guard_.NoteServing(qmp, MakeServingRecord(image_, serve, begin, qmp));
    };
    events.serving.on_interrupt = [this, asked = 0]() mutable { return GoOnServing(++asked); };
    return events;
  }

  // A guest that lives and is not served any more is kept within reach of --recover.
  template <class Work>
  std::invoke_result_t<Work> LeavingToGuard(const bool& lives, const Work& work) {
    try {
      return work();
    } catch (const std::exception& error) {
      if (!lives) throw;
      const bool says_what_to_do = std::string_view(error.what()).find("--recover") != std::string_view::npos;
      guard_.NoteUnserved(says_what_to_do);
      throw;
    }
  }

  void TellStart(const LazyStart& start) const {
    if (ParseProgressStyle(options_.progress) == ProgressStyle::kJson) {
      return PrintJsonLine({{options_.detach ? "completed" : "started",
                             {{"running", start.running}, {"seconds", start.elapsed.count()}}}});
    }
    PrintLine(stderr, fmt::format("{} is {} after {}, its memory comes behind it", GuestName(),
                                  start.running ? "running" : "paused", FormatSeconds(start.elapsed.count())));
  }

  // A QEMU that was started here gets the operator's wish, and ends as it does in an eager restore. One of somebody
  // else's would stand still for want of memory.
  bool GoOnServing(int asked) {
    if (process_) {
      process_->PassOnSignal();
      return true;
    }
    interrupt_.Take();
    if (asked > 1) return false;
    PrintLine(stderr,
              fmt::format("vmrestore: the guest still needs its image and is served on; interrupted again, it will "
                          "stand still until: vmrestore --recover --qmp {} {}",
                          *options_.qmp, options_.image));
    return true;
  }

  std::string GuestName() const {
    const std::string name = ReadDescription(image_.description()).name;
    return name.empty() ? "guest" : name;
  }

  // However long QEMU takes (some allocate all of the guest's RAM first): the operator sees it, and can end it.
  void StartQemu() {
    const auto session = options_.detach ? QemuProcess::Session::kOwn : QemuProcess::Session::kShared;
    process_.emplace(options_.command, interrupt_, session, &guard_).WaitReady(std::chrono::hours(24));
  }

  const Options& options_;
  const Interrupt& interrupt_;
  RestoreGuard& guard_;
  Progress& progress_;
  std::optional<QemuProcess>& process_;
  const std::function<void()>& go_to_background_;
  RestoreOptions restore_;
  Image image_;
};

// `go_to_background`: for a guest that runs, and needs its image.
int Restore(const Options& options, const std::function<void()>& go_to_background) {
  const Interrupt interrupt = Interrupt::FromSignals();
  if (options.qmp || options.detach) HoldOffJobControl();  // else QEMU shares the terminal, and stops with us
  RestoreGuard guard;                                      // before the first thread
  const ProgressStyle style = ParseProgressStyle(options.progress);
  Progress progress;
  std::optional<QemuProcess> process;
  const auto restore = [&] {
    Program program(options, interrupt, guard, progress, process, go_to_background);
    const Report report = ShowProgress(progress, style, [&] { return program.Restore(); });
    if (guard.gone()) PrintLine(stderr, "vmrestore: warning: its guard process was ended by somebody");
    if (style != ProgressStyle::kJson) PrintLine(stderr, report.text);
    return report.json;
  };
  const auto wait_exit = [&] { return process && !options.detach ? process->WaitExit() : 0; };
  try {
    ReportOutcome(progress, style, restore);
  } catch (const UntoldOutcome&) {
    wait_exit();  // its guest runs
    throw;
  }
  return wait_exit();
}

// What fails there is told by the system's log.
int RestoreAndLeave(const Options& options) {
  return RunInBackground([&](const std::function<void()>& go_there) {
    bool left = false;
    const auto go = [&] {
      go_there();
      left = true;
    };
    return RunProgram("vmrestore", [&] {
      try {
        return Restore(options, go);
      } catch (const std::exception& error) {
        if (left) GuardProcess::Tell("vmrestore", error.what());
        throw;
      }
    });
  });
}

int Main(int argc, char** argv) {
  Options options;
  const auto app = MakeApp(
      "vmrestore",
      "Brings a saved guest back: into the QEMU that the command starts, and then stays until it ends; or into "
      "a QEMU that waits with -incoming defer.",
      {"[OPTIONS] IMAGE -- QEMU COMMAND...", "[OPTIONS] --qmp SOCKET IMAGE", "--recover [OPTIONS] --qmp SOCKET IMAGE"});
  AddOptions(*app, options);
  if (!ParseCommandLine(*app, argc, argv, options)) return 0;
  CheckOptions(*app, options);
  if (options.detach && !options.lazy.empty()) return RestoreAndLeave(options);
  return Restore(options, [] {});
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmrestore", [&] { return vmsave::Main(argc, argv); });
}
