// vmsave: saves a guest into an image.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/description_file.h"
#include "cli/program.h"
#include "cli/text.h"
#include "qemu/guest_facts.h"
#include "qemu/save.h"
#include "qemu/save_guard.h"
#include "writer/synthetic_guest.h"

namespace vmsave {
namespace {

struct Options {
  std::string image;
  std::optional<std::string> qmp;
  std::optional<SyntheticShape> synthetic;
  std::optional<int> image_version;
  std::optional<std::string> description;
  std::string from = "auto";
  std::string live;  // empty: no; or how
  std::optional<std::string> after;
  std::optional<unsigned> downtime_limit;
  std::optional<ByteCount> max_bandwidth;
  std::optional<unsigned> timeout;
  bool auto_converge = false;
  bool running = false;
  bool paused = false;
  bool no_checksums = false;
  bool force = false;
  TransferOptions transfer;
  std::string progress = "auto";
};

std::uint64_t ParseNumber(std::string_view text, std::uint64_t most) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number > most) {
    throw UsageError("--synthetic", fmt::format("\"{}\" is no number up to {}", text, most));
  }
  return number;
}

SyntheticShape ParseShape(const std::string& text) {
  SyntheticShape shape;
  std::string_view rest = text;
  for (bool first = true; !rest.empty(); first = false) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    if (first) {
      shape.size = ParseBytes(word, "--synthetic");
    } else if (word.starts_with("zero=")) {
      shape.zero_percent = static_cast<unsigned>(ParseNumber(word.substr(5), 100));
    } else if (word.starts_with("seed=")) {
      shape.seed = ParseNumber(word.substr(5), ~std::uint64_t{0});
    } else {
      throw UsageError("--synthetic", fmt::format("\"{}\" is not known", word), "write 2G,zero=50,seed=1");
    }
  }
  if (shape.size < kPageSize || shape.size.value() % kPageBytes != 0) {
    throw UsageError("--synthetic", "the size must be a multiple of 4 KiB, and not 0");
  }
  return shape;
}

// Nothing for 0: no limit.
std::optional<ByteCount> ParseBandwidth(const std::string& text) {
  constexpr ByteCount kMost{std::uint64_t{1} << 40};
  const ByteCount bandwidth = ParseBytes(text, "--max-bandwidth");
  if (bandwidth == ByteCount{0}) return std::nullopt;
  if (bandwidth < kPageSize || bandwidth > kMost) {
    throw UsageError("--max-bandwidth", fmt::format("\"{}\" is not from 4K to 1T bytes per second", text),
                     "write it as 500M or 2G; 0 is no limit");
  }
  return bandwidth;
}

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("IMAGE", options.image, "the file to write");
  app.add_option("--qmp", options.qmp, "QMP unix socket of the guest")->type_name("SOCKET");
  app.add_option("--after", options.after,
                 "What becomes of the guest once the image is complete: quit (default: QEMU ends), pause or resume "
                 "(default with --live=snapshot)")
      ->check(OneOf({"quit", "pause", "resume"}))
      ->type_name("WHAT");
  app.add_flag("--live{precopy}", options.live,
               "The guest runs while it is saved. --live=precopy (default): what it changes is saved again, and the "
               "image is the guest at the end. --live=snapshot: the image is the guest at the beginning, which stands "
               "still for milliseconds")
      ->check(OneOf({"precopy", "snapshot"}))
      ->disable_flag_override(false)
      ->type_name("[=HOW]");
  app.add_option("--image-version", options.image_version,
                 "2 (legacy stream, any host restores it) or 3 (fixed offsets, checksums); default: "
                 "save_image_version of the configuration, else 2")
      ->check(NumberWithin(2, 3))
      ->type_name("N");
  app.add_option("--from", options.from,
                 "Where the guest's RAM comes from: memory (shared RAM, read straight), multifd (QEMU sends it over "
                 "parallel channels), qemu (QEMU >= 9.1 writes it into the file, version 3), stream (over one "
                 "connection), or auto (default), the first of these that works")
      ->check(OneOf({"auto", "memory", "multifd", "qemu", "stream"}))
      ->type_name("SOURCE");
  app.add_option("--downtime-limit", options.downtime_limit,
                 "With --live=precopy: for how long QEMU may stop the guest at the end; default: as QEMU is set")
      ->check(NumberWithin(1, 2'000'000))
      ->type_name("MS");
  app.add_option_function<std::string>(
         "--max-bandwidth", [&options](const std::string& text) { options.max_bandwidth = ParseBandwidth(text); },
         "At most so many bytes per second from QEMU (500M, 2G); default: 0, no limit. Without effect where vmsave "
         "reads the guest's memory itself (--from memory), not to be had for --live=snapshot")
      ->type_name("BYTES");
  app.add_option(
         "--timeout", options.timeout,
         "With --live=precopy: pause the guest after so many seconds, so that the save ends even if the guest changes "
         "memory faster than it is saved")
      ->check(NumberWithin(1, 1'000'000))
      ->type_name("SECONDS");
  app.add_flag("--auto-converge", options.auto_converge,
               "With --live=precopy: let QEMU slow the guest down for the same end");
  app.add_flag("--force", options.force, "Replace an existing IMAGE");
  app.add_option("--description", options.description, "libvirt's domain XML, to be stored in the image")
      ->type_name("FILE");
  app.add_flag("--running", options.running, "Record the guest as running, to be resumed after a restore");
  app.add_flag("--paused", options.paused, "Record the guest as paused");
  app.add_flag("--no-checksums", options.no_checksums, "Version 3 without its checksums");
  AddTransferOptions(app, options.transfer);
  AddProgressOption(app, options.progress);
  app.add_option_function<std::string>(
         "--synthetic", [&options](const std::string& text) { options.synthetic = ParseShape(text); },
         "Save an in-process guest, for benchmarks: SIZE[,zero=PERCENT][,seed=N]")
      ->type_name("SHAPE");
}

void CheckOptions(const CLI::App& app, const Options& options) {
  RefuseTogether(app, {"--qmp", "--synthetic"});
  for (const char* option : {"--after", "--from", "--live", "--max-bandwidth"}) {
    RefuseTogether(app, {option, "--synthetic"});
  }
  for (const char* option : {"--downtime-limit", "--timeout", "--auto-converge"}) {
    if (app.count(option) > 0 && options.live != "precopy") throw UsageError(option, "it needs --live=precopy");
  }
  if (options.max_bandwidth && options.live == "snapshot") {
    throw UsageError("--max-bandwidth", "it has no effect with --live=snapshot, which QEMU sends as fast as it can");
  }
  if (options.max_bandwidth && options.from == "memory") {
    throw UsageError("--max-bandwidth", "it has no effect with --from memory, which QEMU takes no part in");
  }
  RefuseTogether(app, {"--running", "--paused"});
  if (!options.qmp && !options.synthetic) throw UsageError("no guest is named", "give --qmp SOCKET");
}

AfterSave ParseAfter(const Options& options) {
  const std::string after = options.after.value_or(options.live == "snapshot" ? "resume" : "quit");
  if (after == "pause") return AfterSave::kPause;
  return after == "resume" ? AfterSave::kResume : AfterSave::kQuit;
}

MigrationLimits MakeLimits(const Options& options) {
  MigrationLimits limits;
  if (options.downtime_limit) limits.downtime = std::chrono::milliseconds(*options.downtime_limit);
  limits.bandwidth = options.max_bandwidth;
  if (options.timeout) limits.timeout = std::chrono::seconds(*options.timeout);
  limits.auto_converge = options.auto_converge;
  return limits;
}

void RefuseConflict(const SaveOptions& save) {
  if (!save.from) return;
  const auto conflict = FindConflict(*save.from, {save.from, save.live, save.version});
  if (conflict) throw UsageError(conflict->wishes, conflict->why);
}

SaveOptions MakeSaveOptions(const Options& options, const Transfer& transfer) {
  SaveOptions save;
  save.path = options.image;
  const int version = options.image_version.value_or(transfer.configuration.save_image_version.value_or(2));
  save.version = version == 3 ? ImageVersion::k3 : ImageVersion::k2;
  if (options.no_checksums && version != 3) {
    throw UsageError("--no-checksums", "a version 2 image has none", "it goes with --image-version 3");
  }
  save.replace = options.force ? Replace::kYes : Replace::kNo;
  save.cache = transfer.cache;
  save.write = {transfer.channels, transfer.engine, !options.no_checksums};
  if (options.description) save.description = ReadDescriptionFile(*options.description);
  if (options.running) save.record_running = true;
  if (options.paused) save.record_running = false;
  save.after = ParseAfter(options);
  for (const SaveSource source : {SaveSource::kMemory, SaveSource::kQemu, SaveSource::kMultifd, SaveSource::kStream}) {
    if (options.from == SaveSourceName(source)) save.from = source;
  }
  if (options.live == "precopy") save.live = LiveMode::kPrecopy;
  if (options.live == "snapshot") save.live = LiveMode::kSnapshot;
  save.limits = MakeLimits(options);
  RefuseConflict(save);
  return save;
}

constexpr std::string_view kAsBefore = "is as it was before";

// Of a guest whose save came to nothing.
std::string DescribeGuestNow(QmpClient& qmp) {
  const QmpClient::Uninterrupted uninterrupted(qmp);
  const QmpClient::Patience patience(qmp, std::chrono::seconds(1));
  const std::vector<QmpClient::Json> events = qmp.TakeEvents();
  const auto resumed = [](const QmpClient::Json& event) { return event.value("event", "") == "RESUME"; };
  if (std::ranges::any_of(events, resumed)) return "runs again";
  try {
    return NeedsToRunBeforeSave(qmp) ? "stands still as before; QEMU will not save it again until it has run (QMP cont)"
                                     : std::string(kAsBefore);
  } catch (const Error&) {
    return std::string(kAsBefore);  // as far as it was touched; why QEMU does not answer is told already
  }
}

SaveSummary SaveQemu(const std::string& socket, const SaveOptions& save, Progress& progress, const Interrupt& interrupt,
                     SaveGuard& guard) {
  QmpClient qmp(socket, interrupt);
  if (const std::string warning = WarningBefore(qmp, save); !warning.empty()) {
    PrintLine(stderr, "vmsave: warning: " + warning);
  }
  try {
    return SaveGuest(qmp, save, progress, interrupt, &guard);
  } catch (const NameNotDurable&) {
    PrintLine(stderr, fmt::format("vmsave: the guest {}", DescribeGuestNow(qmp)));
    throw;
  } catch (const Error& error) {
    const std::string now = DescribeGuestNow(qmp);
    const std::string outcome = fmt::format("no image was written, and the guest {}", now);
    if (error.kind() == ErrorKind::kInterrupted) {
      throw Error(ErrorKind::kInterrupted, "stopped", "interrupted by the operator", outcome);
    }
    if (now != kAsBefore) PrintLine(stderr, "vmsave: " + outcome);
    throw;
  }
}

SaveSummary Save(const Options& options, const SaveOptions& save, Progress& progress, const Interrupt& interrupt,
                 SaveGuard& guard) {
  if (options.qmp) return SaveQemu(*options.qmp, save, progress, interrupt, guard);
  progress.Begin("making the guest", ByteCount{0});
  const SyntheticGuest guest(*options.synthetic);
  return SaveImage(guest.image(), "synthetic", save, progress, interrupt, &guard);
}

nlohmann::json AsJson(const SaveSummary& summary, const std::string& image) {
  return {{"guest", summary.guest},
          {"from", SaveSourceName(summary.source)},
          {"why_not_better", summary.why_not_better},
          {"image", image},
          {"ram_bytes", summary.totals.ram.value()},
          {"written_bytes", summary.totals.present.value()},
          {"zero_bytes", summary.totals.zero.value()},
          {"file_length", summary.totals.file_length.value()},
          {"seconds", summary.elapsed.count()},
          {"paused_seconds", summary.paused.count()}};
}

// ", QEMU ended, from multifd (WHY)"; nothing for a synthetic guest. One that was paused before its save is not
// resumed.
std::string GuestNow(const Options& options, const SaveSummary& summary) {
  if (!options.qmp) return "";
  const std::string why = summary.why_not_better.empty() ? "" : fmt::format(" ({})", summary.why_not_better);
  const std::string_view now = summary.after == AfterSave::kQuit ? "QEMU ended"
                               : summary.runs_on                 ? "guest runs on"
                                                                 : "guest is paused";
  return fmt::format(", {}, from {}{}", now, SaveSourceName(summary.source), why);
}

std::string AsText(const SaveSummary& summary) {
  const WriteTotals& totals = summary.totals;
  return fmt::format("saved {}: {} RAM, {} written, {} zero, {} ({}), guest paused {}", summary.guest,
                     FormatBytes(totals.ram), FormatBytes(totals.present), FormatBytes(totals.zero),
                     FormatSeconds(summary.elapsed.count()), FormatRate(totals.present, summary.elapsed.count()),
                     FormatSeconds(summary.paused.count()));
}

void WarnOfNoEffect(const Options& options, const SaveSummary& summary) {
  if (!options.max_bandwidth || summary.source != SaveSource::kMemory) return;
  PrintLine(stderr,
            "vmsave: --max-bandwidth had no effect: the guest's RAM was read from memory, not sent by QEMU "
            "(--from multifd holds it back)");
}

int Main(int argc, char** argv) {
  Options options;
  const auto app = MakeApp("vmsave", "Saves a running QEMU/KVM guest to disk.",
                           {"[OPTIONS] --qmp SOCKET IMAGE", "[OPTIONS] --synthetic SHAPE IMAGE"});
  AddOptions(*app, options);
  if (!ParseOptions(*app, argc, argv)) return 0;
  CheckOptions(*app, options);
  const Interrupt interrupt = Interrupt::FromSignals();
  HoldOffJobControl();
  SaveGuard guard;  // before the first thread
  const ProgressStyle style = ParseProgressStyle(options.progress);
  Progress progress;
  ReportOutcome(progress, style, [&] {
    const SaveOptions save = MakeSaveOptions(options, ResolveTransfer("vmsave", options.transfer));
    const SaveSummary summary =
        ShowProgress(progress, style, [&] { return Save(options, save, progress, interrupt, guard); });
    WarnOfNoEffect(options, summary);
    if (guard.gone()) PrintLine(stderr, "vmsave: warning: its guard process was ended by somebody");
    if (style != ProgressStyle::kJson) PrintLine(stdout, AsText(summary) + GuestNow(options, summary));
    return AsJson(summary, options.image);
  });
  return 0;
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmsave", [&] { return vmsave::Main(argc, argv); });
}
