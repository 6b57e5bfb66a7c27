#include "tests/e2e/faults.h"

#include <fmt/format.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>

namespace vmsave {
namespace {

bool IsProcess(const std::filesystem::path& entry) {
  return std::isdigit(static_cast<unsigned char>(entry.filename().string().front())) != 0;
}

bool WasStartedWith(const std::filesystem::path& process, const std::string& argument) {
  std::ifstream file(process / "cmdline");
  for (std::string word; std::getline(file, word, '\0');) {
    if (word == argument) return true;
  }
  return false;
}

bool IsAnyLeft(const std::string& argument) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    if (IsProcess(entry.path()) && WasStartedWith(entry.path(), argument)) return true;
  }
  return false;
}

// Nothing where it is not set to a number from 1 on.
std::optional<unsigned> FromEnvironment(const char* name) {
  const char* text = std::getenv(name);
  const long number = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return number > 0 ? std::optional(static_cast<unsigned>(number)) : std::nullopt;
}

}  // namespace

Outcome RunToEndOfGuard(const std::vector<std::string>& command, const std::string& argument) {
  ProgramRun run(command);
  return WaitForGuardToo(run, argument);
}

Outcome WaitForGuardToo(ProgramRun& run, const std::string& argument) {
  Outcome outcome = run.Wait();
  WaitUntil("the end of the guard", [&] { return !IsAnyLeft(argument); });
  outcome.err = run.err();
  return outcome;
}

std::string FaultSteps::Text() const {
  return fmt::format("VMSAVE_FAULT_START={} VMSAVE_FAULT_STRIDE={}", start, stride);
}

FaultSteps ChooseFaultSteps(unsigned usual_stride) {
  const unsigned stride = FromEnvironment("VMSAVE_FAULT_STRIDE").value_or(usual_stride);
  const unsigned start = FromEnvironment("VMSAVE_FAULT_START").value_or(std::random_device()());
  return {(start + stride - 1) % stride + 1, stride};
}

}  // namespace vmsave
