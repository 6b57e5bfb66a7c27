// Shows the progress of long work: a bar on a terminal, or JSON lines for scripts.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "io/progress.h"

namespace vmsave {

enum class ProgressStyle { kOff, kBar, kJson };

// "auto" (a bar where standard error is a terminal), "bar", "json", "off".
ProgressStyle ParseProgressStyle(const std::string& name);

// Writes a line and passes over errors: what nobody reads any more must not end a program that has a guest in its
// hands.
void PrintLine(std::FILE* stream, const std::string& line);

// Draws from construction to Stop, on a thread of its own: the bar on standard error, JSON on standard output.
class ProgressDisplay {
 public:
  ProgressDisplay(const Progress& progress, ProgressStyle style);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  // Takes the bar off the screen; nothing is shown any more.
  void Stop();

  // As JSON's last line. Each stops the display first, and does nothing with another style.
  void Completed(const nlohmann::json& totals);
  void Failed(const std::string& error);

 private:
  void Run(const std::stop_token& stop);
  void Show();

  const Progress& progress_;
  ProgressStyle style_;
  std::string_view shown_phase_;
  std::chrono::steady_clock::time_point phase_start_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace vmsave
