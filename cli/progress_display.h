// Shows the progress of long work: a bar on a terminal, or JSON lines for scripts.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "cli/progress_line.h"
#include "io/progress.h"

namespace vmsave {

enum class ProgressStyle { kOff, kBar, kJson };

// "auto" (a bar where standard error is a terminal), "bar", "json", "off".
ProgressStyle ParseProgressStyle(const std::string& name);

// How long a line waits for a reader who is slow. Where nobody reads, it is dropped.
inline constexpr std::chrono::milliseconds kPatienceWithReader{1000};

// Write a line and pass over errors: what nobody reads any more must neither end nor hold up a program that has a guest
// in its hands. What goes to people is made Printable().
void PrintLine(std::FILE* stream, const std::string& line);
void PrintJsonLine(const nlohmann::json& object);  // on standard output

// False, with errno set (ETIMEDOUT where nobody reads), where not all of it was written.
bool TryPrintJsonLine(const nlohmann::json& object, std::chrono::milliseconds patience = kPatienceWithReader);

// How wide the terminal is, as of now; 80 where that is not known.
std::size_t TerminalColumns(int terminal);

// Draws while it lives, on a thread of its own: the bar on standard error, JSON on standard output. The bar leaves
// nothing on the screen; where that is no terminal, lines take its place. Nobody who does not read holds it up for
// longer than kPatienceWithReader in all.
class ProgressDisplay {
 public:
  ProgressDisplay(const Progress& progress, ProgressStyle style);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  void Run(const std::stop_token& stop);
  void Show();
  bool Print(const PhaseProgress& now);
  PhaseProgress Look();

  const Progress& progress_;
  ProgressStyle style_;
  bool on_terminal_;
  ProgressLog log_;
  std::string_view phase_;  // the one shown last; where it was when it was first seen
  ByteCount done_at_first_;
  Clock::time_point first_seen_;
  std::chrono::milliseconds patience_ = kPatienceWithReader;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace vmsave
