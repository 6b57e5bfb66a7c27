// What the three programs have in common: options, exit status, messages.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "cli/configuration.h"
#include "cli/progress_display.h"
#include "io/new_file.h"

namespace vmsave {

// Runs `body` and returns its exit status; an error is told on standard error as "PROGRAM: ..." and becomes 1 (failed),
// 2 (usage), 3 (damaged or refused image) or 130 (interrupted).
int RunProgram(const std::string& program, const std::function<int()>& body);

// Parses. An exit status where the program is to end at once: --help, --version, or a usage error (2), which has been
// told.
std::optional<int> ParseOptions(CLI::App& app, int argc, const char* const* argv);

// A new App with --version and the exit statuses in its help.
std::unique_ptr<CLI::App> MakeApp(const std::string& program, const std::string& purpose);

// Options of every program that moves pages. Unset ones fall back to the configuration, then to the default.
struct TransferOptions {
  std::optional<unsigned> parallel;
  bool bypass_cache = false;
  std::optional<std::string> io_engine;
  std::string progress = "auto";
  std::optional<std::string> config;
};
void AddTransferOptions(CLI::App& app, TransferOptions& options);

struct Transfer {
  Configuration configuration;
  unsigned channels;
  CacheUse cache;
  EngineKind engine;
  ProgressStyle progress;
};

// Reads the configuration and chooses the engine; says on standard error where io_uring cannot be had.
Transfer ResolveTransfer(const std::string& program, const TransferOptions& options);

// Shows progress while `work` runs; `work` returns the totals for JSON's last line.
void ShowProgress(const Progress& progress, ProgressStyle style, const std::function<nlohmann::json()>& work);

}  // namespace vmsave
