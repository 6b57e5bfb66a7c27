#include "cli/progress_display.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "format/printable.h"

namespace vmsave {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(200);
constexpr std::size_t kUsualColumns = 80;
constexpr std::string_view kClearLine = "\r\x1b[K";

void Write(std::FILE* stream, const std::string& text) {
  std::fputs(text.c_str(), stream);
  std::fflush(stream);
}

}  // namespace

void PrintLine(std::FILE* stream, const std::string& line) {
  Write(stream, Printable(line) + "\n");
}

void PrintJsonLine(const nlohmann::json& object) {
  // A path or an error text may hold bytes that are no UTF-8.
  Write(stdout, object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

ProgressStyle ParseProgressStyle(const std::string& name) {
  if (name == "bar") return ProgressStyle::kBar;
  if (name == "json") return ProgressStyle::kJson;
  if (name == "off") return ProgressStyle::kOff;
  return ::isatty(STDERR_FILENO) != 0 ? ProgressStyle::kBar : ProgressStyle::kOff;
}

std::size_t TerminalColumns(int terminal) {
  winsize size{};
  if (::ioctl(terminal, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsualColumns;
  return size.ws_col;
}

ProgressDisplay::ProgressDisplay(const Progress& progress, ProgressStyle style)
    : progress_(progress), style_(style), on_terminal_(::isatty(STDERR_FILENO) != 0) {
  if (style_ == ProgressStyle::kOff) return;
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

ProgressDisplay::~ProgressDisplay() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
  if (style_ == ProgressStyle::kBar && on_terminal_) Write(stderr, std::string(kClearLine));
}

void ProgressDisplay::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    Show();
    wake_.wait_for(lock, stop, kInterval, [] { return false; });
  }
}

void ProgressDisplay::Show() {
  const PhaseProgress now = Look();
  if (style_ == ProgressStyle::kJson) {
    PrintJsonLine(ProgressJson(now));
  } else if (on_terminal_) {
    Write(stderr, fmt::format("{}{}", kClearLine, ProgressLine(now, TerminalColumns(STDERR_FILENO))));
  } else if (const std::string line = log_.Next(now); !line.empty()) {
    PrintLine(stderr, line);
  }
}

PhaseProgress ProgressDisplay::Look() {
  const std::string_view phase = progress_.phase();
  const ByteCount done = progress_.done();
  // Work that begins a phase of the same name anew starts from less than was done.
  if (phase != phase_ || done < done_at_first_) {
    phase_ = phase;
    done_at_first_ = done;
    first_seen_ = Clock::now();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - first_seen_).count();
  return {phase, done, progress_.total(), done - done_at_first_, seconds, progress_.demand()};
}

}  // namespace vmsave
