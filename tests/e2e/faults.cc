#include "tests/e2e/faults.h"

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>

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

unsigned FaultStride(unsigned usual) {
  const char* text = std::getenv("VMSAVE_FAULT_STRIDE");
  const long stride = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return stride > 0 ? static_cast<unsigned>(stride) : usual;
}

}  // namespace vmsave
