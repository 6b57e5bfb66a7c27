// One run of a program, as an operator or a script would start it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "io/file_descriptor.h"

namespace vmsave {

// Long enough for any machine; a test that passes does not wait for it.
inline constexpr std::chrono::seconds kPatience{180};

struct Outcome {
  int status = -1;  // as a shell tells it: 128 + N for a program ended by signal N
  std::string out;
  std::string err;
};

// kOwn: as a shell starts a job at a terminal. The kernel stops no program whose group has no parent outside of it.
enum class ProcessGroup { kShared, kOwn };

// Starts at once. What the program prints is kept in memory, so that neither it nor a process it leaves behind ever
// waits for a reader. The destructor kills the program, not what it has started.
class ProgramRun {
 public:
  explicit ProgramRun(const std::vector<std::string>& command, ProcessGroup group = ProcessGroup::kShared);
  ProgramRun(const ProgramRun&) = delete;
  ProgramRun& operator=(const ProgramRun&) = delete;
  ~ProgramRun();

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  bool Ended();

  // What it has printed so far.
  std::string out() const;
  std::string err() const;

  // Throws std::runtime_error where the program does not end in time.
  Outcome Wait();

 private:
  FileDescriptor out_;
  FileDescriptor err_;
  pid_t pid_ = -1;
  std::optional<int> wait_status_;
};

Outcome RunToEnd(const std::vector<std::string>& command);

// Asks `condition` until it holds. Throws std::runtime_error saying what was waited for where it never does.
template <class Condition>
void WaitUntil(std::string_view what, const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("waited in vain: " + std::string(what));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace vmsave
