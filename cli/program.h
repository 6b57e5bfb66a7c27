// What the three programs have in common: options, exit status, messages.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "cli/command_line.h"
#include "cli/configuration.h"
#include "cli/progress_display.h"
#include "io/new_file.h"
#include "reader/image.h"

namespace vmsave {

// Runs `body` and returns its exit status; an error is told on standard error as "PROGRAM: ..." and becomes 1 (failed),
// 2 (usage), 3 (damaged or refused image) or 130 (interrupted). That of a UsageError ends with "see PROGRAM --help".
int RunProgram(const std::string& program, const std::function<int()>& body);

// Options of every program that moves pages. Unset ones fall back to the configuration, then to the default.
struct TransferOptions {
  std::optional<unsigned> parallel;
  bool bypass_cache = false;
  std::optional<std::string> io_engine;
  std::optional<std::string> config;
};
void AddTransferOptions(CLI::App& app, TransferOptions& options);

// --progress; "auto" unless given.
void AddProgressOption(CLI::App& app, std::string& style);

struct Transfer {
  Configuration configuration;
  unsigned channels;
  CacheUse cache;
  EngineKind engine;
};

// Reads the configuration and chooses the engine; says on standard error where io_uring cannot be had.
Transfer ResolveTransfer(const std::string& program, const TransferOptions& options);

// Says on standard error where direct I/O goes on without knowing what alignment the image's file demands. Throws as
// Image::OpenForPages does.
void TellAssumedAlignment(const std::string& program, const Image& image, CacheUse cache);

// The work was done, but its closing line could not be written.
class UntoldOutcome : public Error {
 public:
  explicit UntoldOutcome(int error_number);
};

// Runs `work`; with kJson, prints exactly one closing line: {"completed": what `work` returned} or, where it throws,
// {"failed": ...}. Throws UntoldOutcome where that of "completed" cannot be written.
void ReportOutcome(const Progress& progress, ProgressStyle style, const std::function<nlohmann::json()>& work);

// Returns what `work` returns, and shows its progress meanwhile.
template <class Work>
auto ShowProgress(const Progress& progress, ProgressStyle style, const Work& work) {
  const ProgressDisplay display(progress, style);
  return work();
}

}  // namespace vmsave
