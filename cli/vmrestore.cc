// vmrestore: brings a saved guest back.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "cli/program.h"
#include "cli/text.h"
#include "qemu/guest_facts.h"
#include "qemu/qemu_process.h"
#include "qemu/restore.h"
#include "qemu/restore_checks.h"
#include "qemu/restore_guard.h"
#include "reader/verify.h"

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
  TransferOptions transfer;
  std::string progress = "auto";
};

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("IMAGE", options.image, "the image to restore");
  app.add_option("--qmp", options.qmp, "QMP unix socket of a QEMU that waits with -incoming defer")
      ->type_name("SOCKET");
  app.add_option("--via", options.via,
                 "How RAM gets into QEMU: memory (shared RAM, read straight into it), native (QEMU reads the image), "
                 "multifd (parallel channels into QEMU), stream (any QEMU), or auto (default), the first that works")
      ->check(OneOf({"auto", "memory", "native", "multifd", "stream"}))
      ->type_name("WAY");
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

void VerifyFirst(const Image& image, const Options& options, const ReadOptions& read, Progress& progress,
                 const Interrupt& interrupt) {
  if (options.verify == "metadata") VerifyMetadata(image);
  if (options.verify == "full") VerifyAll(image, read, progress, interrupt);
}

std::string AsText(const RestoreSummary& summary, const std::string& guest) {
  const std::string present = summary.present ? fmt::format(", {} present", FormatBytes(*summary.present)) : "";
  const std::string why = summary.why_not_faster.empty() ? "" : fmt::format(" ({})", summary.why_not_faster);
  const std::string unchecked = summary.pages_unchecked ? ", checksums of its pages not looked at" : "";
  return fmt::format("restored {}: {} RAM{}, {}, via {}{}{}, {}", guest, FormatBytes(summary.ram), present,
                     FormatSeconds(summary.elapsed.count()), RestoreWayName(summary.way), why, unchecked,
                     summary.running ? "running" : "paused");
}

nlohmann::json AsJson(const RestoreSummary& summary, const Options& options) {
  return {{"image", options.image},
          {"via", RestoreWayName(summary.way)},
          {"ram_bytes", summary.ram.value()},
          {"present_bytes", summary.present ? nlohmann::json(summary.present->value()) : nlohmann::json()},
          {"pages_unchecked", summary.pages_unchecked},
          {"seconds", summary.elapsed.count()},
          {"running", summary.running}};
}

class Program {
 public:
  // `process` is filled where a QEMU is started.
  Program(const Options& options, const Interrupt& interrupt, RestoreGuard& guard, Progress& progress,
          std::optional<QemuProcess>& process)
      : options_(options),
        interrupt_(interrupt),
        guard_(guard),
        progress_(progress),
        process_(process),
        restore_(MakeRestoreOptions(options, ResolveTransfer("vmrestore", options.transfer))),
        image_(options.image) {}

  RestoreSummary Restore() {
    CheckWish(image_, restore_.wish);
    if (options_.qmp) CheckSocketIsThere(*options_.qmp);
    if (!options_.command.empty()) CheckCommandFits(image_, ReadCommand(options_.command));
    VerifyFirst(image_, options_, restore_.wish.read, progress_, interrupt_);
    TellAssumedAlignment("vmrestore", image_, restore_.wish.read.cache);
    progress_.Begin("starting QEMU", ByteCount{0});
    if (!options_.command.empty()) StartQemu();
    QmpClient qmp(process_ ? process_->qmp_socket_path() : *options_.qmp, interrupt_);
    RestoreSummary summary = RestoreGuest(qmp, image_, restore_, progress_, interrupt_, &guard_);
    if (process_) process_->Release();
    guard_.NoteReleased();
    return summary;
  }

  std::string GuestName() const {
    const std::string name = ReadDescription(image_.description()).name;
    return name.empty() ? "guest" : name;
  }

 private:
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
  RestoreOptions restore_;
  Image image_;
};

int Main(int argc, char** argv) {
  Options options;
  const auto app =
      MakeApp("vmrestore",
              "Brings a saved guest back: into the QEMU that the command starts, and then stays until it ends; or into "
              "a QEMU that waits with -incoming defer.",
              {"[OPTIONS] IMAGE -- QEMU COMMAND...", "[OPTIONS] --qmp SOCKET IMAGE"});
  AddOptions(*app, options);
  if (!ParseCommandLine(*app, argc, argv, options)) return 0;
  CheckOptions(*app, options);
  const Interrupt interrupt = Interrupt::FromSignals();
  if (options.qmp || options.detach) HoldOffJobControl();  // else QEMU shares the terminal, and stops with us
  RestoreGuard guard;                                      // before the first thread
  const ProgressStyle style = ParseProgressStyle(options.progress);
  Progress progress;
  std::optional<QemuProcess> process;
  const auto restore = [&] {
    Program program(options, interrupt, guard, progress, process);
    const RestoreSummary summary = ShowProgress(progress, style, [&] { return program.Restore(); });
    if (guard.gone()) PrintLine(stderr, "vmrestore: warning: its guard process was ended by somebody");
    if (style != ProgressStyle::kJson) PrintLine(stderr, AsText(summary, program.GuestName()));
    return AsJson(summary, options);
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

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmrestore", [&] { return vmsave::Main(argc, argv); });
}
