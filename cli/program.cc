#include "cli/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "io/channels.h"

namespace vmsave {
namespace {

constexpr unsigned kMostDefaultChannels = 8;
constexpr const char* kExitStatus =
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 damaged or refused image, 130 interrupted.";

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

std::optional<EngineKind> WantedEngine(const std::string& name) {
  if (name == "uring") return EngineKind::kUring;
  if (name == "sync") return EngineKind::kSync;
  return std::nullopt;
}

}  // namespace

int RunProgram(const std::string& program, const std::function<int()>& body) {
  try {
    return body();
  } catch (const Error& error) {
    fmt::print(stderr, "{}: {}\n", program, error.what());
    return ExitStatus(error.kind());
  } catch (const nlohmann::json::exception& error) {
    fmt::print(stderr, "{}: QEMU answered something unexpected: {}\n", program, error.what());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "{}: out of memory\n", program);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", program, error.what());
  }
  return 1;
}

std::unique_ptr<CLI::App> MakeApp(const std::string& program, const std::string& purpose) {
  auto app = std::make_unique<CLI::App>(purpose, program);
  app->set_version_flag("--version", fmt::format("{} {}", program, VMSAVE_VERSION));
  app->footer(kExitStatus);
  app->get_formatter()->column_width(34);
  return app;
}

std::optional<int> ParseOptions(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return std::nullopt;
}

void AddTransferOptions(CLI::App& app, TransferOptions& options) {
  app.add_option("--parallel", options.parallel, "Channels; default: the number of cores, at most 8")
      ->check(CLI::Range(1U, kMaxChannels))
      ->type_name("N");
  app.add_flag("--bypass-cache", options.bypass_cache, "Move pages past the page cache (O_DIRECT)");
  app.add_option("--io-engine", options.io_engine,
                 "auto, uring or sync; default: auto, io_uring where the kernel has it")
      ->check(CLI::IsMember({"auto", "uring", "sync"}))
      ->type_name("ENGINE");
  app.add_option("--progress", options.progress, "auto (a bar on a terminal), bar, json or off")
      ->check(CLI::IsMember({"auto", "bar", "json", "off"}))
      ->type_name("STYLE");
  app.add_option("--config", options.config, fmt::format("Configuration; default: {} if there", kDefaultConfiguration))
      ->type_name("FILE");
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
    fmt::print(stderr, "{}: using {} I/O: {}\n", program, EngineName(choice.kind), choice.fallback_reason);
  }
  transfer.progress = ParseProgressStyle(options.progress);
  return transfer;
}

void ShowProgress(const Progress& progress, ProgressStyle style, const std::function<nlohmann::json()>& work) {
  ProgressDisplay display(progress, style);
  try {
    display.Completed(work());
  } catch (const std::exception& error) {
    display.Failed(error.what());
    throw;
  }
}

}  // namespace vmsave
