#include "cli/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <thread>

#include "io/channels.h"

namespace vmsave {
namespace {

constexpr unsigned kMostDefaultChannels = 8;

int ExitStatus(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kDamaged:
      return 3;
    case ErrorKind::kInterrupted:
      return 130;
    case ErrorKind::kFailed:
      break;
  }
  return 1;
}

unsigned DefaultChannels() {
  return std::clamp(std::thread::hardware_concurrency(), 1U, kMostDefaultChannels);
}

// Else the next file that is opened would be one, and be written messages into.
void OpenClosedStandardStreams() {
  int opened = -1;
  do {
    opened = ::open("/dev/null", O_RDWR);
  } while (opened >= 0 && opened <= STDERR_FILENO);
  ::close(opened);
}

// A guest's memory is mapped here, or in our buffers: no core dump, and no other process of this user may look.
void KeepMemoryToOurselves() {
  ::prctl(PR_SET_DUMPABLE, 0);
}

// Who ignores it, as our parent may, learns no status of his children, and their numbers go to others.
void HeedChildren() {
  ::signal(SIGCHLD, SIG_DFL);
}

std::optional<EngineKind> WantedEngine(const std::string& name) {
  if (name == "uring") return EngineKind::kUring;
  if (name == "sync") return EngineKind::kSync;
  return std::nullopt;
}

}  // namespace

int RunProgram(const std::string& program, const std::function<int()>& body) {
  HeedChildren();
  OpenClosedStandardStreams();
  KeepMemoryToOurselves();
  try {
    return body();
  } catch (const UsageError& error) {
    PrintLine(stderr, fmt::format("{0}: {1}; see {0} --help", program, error.what()));
    return ExitStatus(error.kind());
  } catch (const Error& error) {
    PrintLine(stderr, fmt::format("{}: {}", program, error.what()));
    return ExitStatus(error.kind());
  } catch (const nlohmann::json::exception& error) {
    PrintLine(stderr, fmt::format("{}: QEMU answered something unexpected: {}", program, error.what()));
  } catch (const std::bad_alloc&) {
    PrintLine(stderr, program + ": out of memory");
  } catch (const std::exception& error) {
    PrintLine(stderr, fmt::format("{}: {}", program, error.what()));
  }
  return 1;
}

void AddTransferOptions(CLI::App& app, TransferOptions& options) {
  app.add_option("--parallel", options.parallel, "Channels, 1 to 256; default: the number of cores, at most 8")
      ->check(NumberWithin(1, kMaxChannels))
      ->type_name("N");
  app.add_flag("--bypass-cache", options.bypass_cache, "Move pages past the page cache (O_DIRECT)");
  app.add_option("--io-engine", options.io_engine, "auto (default: io_uring where the kernel has it), uring or sync")
      ->check(OneOf({"auto", "uring", "sync"}))
      ->type_name("ENGINE");
  app.add_option("--config", options.config,
                 fmt::format("Defaults of options; default: {} if it is there", kDefaultConfiguration))
      ->type_name("FILE");
}

void AddProgressOption(CLI::App& app, std::string& style) {
  app.add_option("--progress", style,
                 "auto (default: a bar if standard error is a terminal), bar, json (lines on standard output) or off")
      ->check(OneOf({"auto", "bar", "json", "off"}))
      ->type_name("STYLE");
}

Transfer ResolveTransfer(const std::string& program, const TransferOptions& options) {
  Transfer transfer{};
  transfer.configuration = ReadConfiguration(options.config);
  const Configuration& configuration = transfer.configuration;
  transfer.channels = options.parallel.value_or(configuration.parallel.value_or(DefaultChannels()));
  const bool bypass = options.bypass_cache || configuration.bypass_cache.value_or(false);
  transfer.cache = bypass ? CacheUse::kBypass : CacheUse::kPageCache;
  const std::string engine = options.io_engine.value_or(configuration.io_engine.value_or("auto"));
  const EngineChoice choice = ChooseEngine(WantedEngine(engine));
  transfer.engine = choice.kind;
  if (!choice.fallback_reason.empty()) {
    PrintLine(stderr, fmt::format("{}: using {} I/O: {}", program, EngineName(choice.kind), choice.fallback_reason));
  }
  return transfer;
}

void TellAssumedAlignment(const std::string& program, const Image& image, CacheUse cache) {
  if (cache != CacheUse::kBypass || image.alignment_source() == AlignmentSource::kTold) return;
  PrintLine(stderr,
            fmt::format("{}: {}: this kernel or file system does not tell the alignment of direct I/O; {} bytes "
                        "are assumed",
                        program, image.path(), kPageBytes));
}

UntoldOutcome::UntoldOutcome(int error_number)
    : Error(ErrorKind::kFailed, "cannot write the closing line to standard output",
            error_number == ETIMEDOUT ? "nobody reads it" : std::generic_category().message(error_number),
            "what it was to tell of is done all the same") {}

void ReportOutcome(const Progress& progress, ProgressStyle style, const std::function<nlohmann::json()>& work) {
  const bool is_told = style == ProgressStyle::kJson;
  nlohmann::json totals;
  try {
    totals = work();
  } catch (const std::exception& error) {
    const nlohmann::json facts{
        {"error", error.what()}, {"done", progress.done().value()}, {"total", progress.total().value()}};
    if (is_told) PrintJsonLine({{"failed", facts}});
    throw;
  }
  if (is_told && !TryPrintJsonLine({{"completed", totals}})) throw UntoldOutcome(errno);
}

}  // namespace vmsave
