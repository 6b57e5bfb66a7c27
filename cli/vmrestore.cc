// vmrestore: brings a saved guest back.
#include <fmt/format.h>

#include <algorithm>

#include "cli/program.h"
#include "cli/text.h"
#include "qemu/guest_facts.h"
#include "qemu/qemu_process.h"
#include "qemu/restore.h"
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
};

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("IMAGE", options.image, "The image to restore; it is never changed")->required();
  app.add_option("--qmp", options.qmp, "QMP unix socket of a QEMU that waits with -incoming defer")
      ->type_name("SOCKET");
  app.add_option("--via", options.via,
                 "How RAM gets into QEMU: memory (shared RAM, read straight into it), native (QEMU reads the image), "
                 "stream (any QEMU), or auto, the first that works")
      ->check(CLI::IsMember({"auto", "memory", "native", "stream"}))
      ->capture_default_str()
      ->type_name("WAY");
  app.add_option("--verify", options.verify,
                 "metadata (all but the pages first, pages on their way), full (everything first) or off")
      ->check(CLI::IsMember({"metadata", "full", "off"}))
      ->capture_default_str()
      ->type_name("WHAT");
  auto* running = app.add_flag("--running", options.running, "Resume the guest even if it was paused when saved");
  app.add_flag("--paused", options.paused, "Leave the guest paused")->excludes(running);
  app.add_flag("--detach", options.detach, "Return as soon as the guest is restored; QEMU stays");
  AddTransferOptions(app, options.transfer);
}

// Splits off what follows "--". Returns how many arguments are the program's own.
int TakeCommand(int argc, char** argv, Options& options) {
  char** const end = argv + argc;
  char** const separator = std::find(argv, end, std::string_view("--"));
  if (separator != end) options.command.assign(separator + 1, end);
  return static_cast<int>(separator - argv);
}

void CheckOptions(const Options& options) {
  if (options.qmp.has_value() != options.command.empty()) {
    throw Error(ErrorKind::kUsage, "vmrestore needs a QEMU", "give either --qmp SOCKET, or -- and the QEMU command",
                "see vmrestore --help");
  }
  if (options.detach && options.qmp) {
    throw Error(ErrorKind::kUsage, "--detach", "it needs a QEMU that vmrestore starts", "leave it out with --qmp");
  }
}

RestoreOptions MakeRestoreOptions(const Options& options, const Transfer& transfer) {
  RestoreOptions restore;
  for (const RestoreWay way : {RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kStream}) {
    if (options.via == RestoreWayName(way)) restore.way = way;
  }
  restore.read = {transfer.channels, transfer.engine, transfer.cache};
  restore.pages_verified = options.verify == "full";
  restore.checks = options.verify == "off" ? PageChecks::kOff : PageChecks::kOn;
  if (options.running) restore.run = true;
  if (options.paused) restore.run = false;
  return restore;
}

void VerifyFirst(const Image& image, const Options& options, const RestoreOptions& restore, Progress& progress,
                 const Interrupt& interrupt) {
  if (options.verify == "off") return;
  VerifyMetadata(image);
  if (options.verify == "metadata") return;
  const VerifyReport report = Verify(image, restore.read, progress, interrupt);
  if (!report.damage.empty()) {
    throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", image.path()), report.damage.front(),
                "restore from another copy");
  }
}

std::string AsText(const RestoreSummary& summary, const std::string& guest) {
  const std::string present =
      summary.present == ByteCount{0} ? "" : fmt::format(", {} present", FormatBytes(summary.present));
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
          {"present_bytes", summary.present.value()},
          {"pages_unchecked", summary.pages_unchecked},
          {"seconds", summary.elapsed.count()},
          {"running", summary.running}};
}

class Program {
 public:
  Program(const Options& options, const Transfer& transfer)
      : options_(options),
        transfer_(transfer),
        restore_(MakeRestoreOptions(options, transfer)),
        image_(options.image) {}

  int Run(const Interrupt& interrupt) {
    std::optional<QemuProcess> process;
    Progress progress;
    std::optional<RestoreSummary> summary;
    ShowProgress(progress, transfer_.progress, [&] {
      if (!options_.command.empty()) CheckCommandFits(image_, ReadCommand(options_.command));
      VerifyFirst(image_, options_, restore_, progress, interrupt);
      progress.Begin("starting QEMU", ByteCount{0});
      if (!options_.command.empty()) StartQemu(process, interrupt);
      QmpClient qmp(process ? process->qmp_socket_path() : *options_.qmp, interrupt);
      summary = RestoreGuest(qmp, image_, restore_, progress, interrupt);
      if (process) process->Release();
      return AsJson(*summary, options_);
    });
    if (transfer_.progress != ProgressStyle::kJson) PrintLine(stderr, AsText(*summary, GuestName()));
    return process && !options_.detach ? process->WaitExit() : 0;
  }

 private:
  // However long QEMU takes (some allocate all of the guest's RAM first): the operator sees it, and can end it.
  void StartQemu(std::optional<QemuProcess>& process, const Interrupt& interrupt) const {
    const auto session = options_.detach ? QemuProcess::Session::kOwn : QemuProcess::Session::kShared;
    process.emplace(options_.command, interrupt, session).WaitReady(std::chrono::hours(24));
  }

  std::string GuestName() const {
    const std::string name = ReadDescription(image_.description()).name;
    return name.empty() ? "guest" : name;
  }

  const Options& options_;
  const Transfer& transfer_;
  RestoreOptions restore_;
  Image image_;
};

int Main(int argc, char** argv) {
  Options options;
  const auto app =
      MakeApp("vmrestore",
              "Brings a saved guest back into a QEMU.\n\n"
              "  vmrestore [OPTIONS] IMAGE -- QEMU COMMAND...    starts that QEMU, and stays until it ends\n"
              "  vmrestore [OPTIONS] --qmp SOCKET IMAGE          for a QEMU that waits with -incoming defer");
  AddOptions(*app, options);
  const int own_arguments = TakeCommand(argc, argv, options);
  if (const auto status = ParseOptions(*app, own_arguments, argv)) return *status;
  CheckOptions(options);
  const Interrupt interrupt = Interrupt::FromSignals();
  const Transfer transfer = ResolveTransfer("vmrestore", options.transfer);
  return Program(options, transfer).Run(interrupt);
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmrestore", [&] { return vmsave::Main(argc, argv); });
}
