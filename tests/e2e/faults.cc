#include "tests/e2e/faults.h"

#include <fmt/format.h>

#include <algorithm>
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

// No program that is tried has fewer: vmsave makes 6 writes where QEMU makes the others.
constexpr unsigned kFewestSteps = 5;

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

bool IsStopped(const ProgramRun& run) {
  std::ifstream file("/proc/" + std::to_string(run.pid()) + "/stat");
  std::string status;
  std::getline(file, status);
  const std::size_t name_end = status.rfind(')');
  return name_end != std::string::npos && status.substr(name_end, 3) == ") T";
}

std::string FaultSteps::Text() const {
  return fmt::format("VMSAVE_FAULT_START={} VMSAVE_FAULT_STRIDE={}", start, stride);
}

FaultSteps ChooseFaultSteps(unsigned usual_stride) {
  std::random_device random;
  const auto draw = [&random](unsigned first, unsigned last) {
    return std::uniform_int_distribution<unsigned>(first, last)(random);
  };
  const unsigned stride = usual_stride == 1 ? 1 : draw(usual_stride / 2, usual_stride + usual_stride / 2);
  FaultSteps steps{0, FromEnvironment("VMSAVE_FAULT_STRIDE").value_or(stride)};
  steps.start = FromEnvironment("VMSAVE_FAULT_START").value_or(draw(1, std::min(steps.stride, kFewestSteps)));
  return steps;
}

}  // namespace vmsave
