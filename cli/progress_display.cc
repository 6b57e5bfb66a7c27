#include "cli/progress_display.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <string_view>

#include "format/printable.h"

namespace vmsave {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(200);
constexpr std::size_t kUsualColumns = 80;
constexpr std::string_view kClearLine = "\r\x1b[K";

using Milliseconds = std::chrono::milliseconds;

// In pieces that a pipe takes whole, or has no room for.
bool Write(int file, std::string_view text, Milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!text.empty()) {
    const auto left = std::chrono::ceil<Milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd stream{file, POLLOUT, 0};
    const int ready = ::poll(&stream, 1, static_cast<int>(std::max(left, Milliseconds(0)).count()));
    if (ready == 0) errno = ETIMEDOUT;
    const ssize_t written = ready > 0 ? ::write(file, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF)) : -1;
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool WriteLine(int file, const std::string& line, Milliseconds patience) {
  return Write(file, Printable(line) + "\n", patience);
}

}  // namespace

void PrintLine(std::FILE* stream, const std::string& line) {
  WriteLine(::fileno(stream), line, kPatienceWithReader);
}

void PrintJsonLine(const nlohmann::json& object) {
  TryPrintJsonLine(object);
}

bool TryPrintJsonLine(const nlohmann::json& object, Milliseconds patience) {
  // A path or an error text may hold bytes that are no UTF-8.
  const std::string line = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return Write(STDOUT_FILENO, line, patience);
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
  if (style_ == ProgressStyle::kBar && on_terminal_) Write(STDERR_FILENO, kClearLine, patience_);
}

void ProgressDisplay::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    Show();
    wake_.wait_for(lock, stop, kInterval, [] { return false; });
  }
}

void ProgressDisplay::Show() {
  if (!Print(Look())) patience_ = Milliseconds(0);
}

bool ProgressDisplay::Print(const PhaseProgress& now) {
  if (style_ == ProgressStyle::kJson) return TryPrintJsonLine(ProgressJson(now), patience_);
  if (on_terminal_) {
    const std::string bar = ProgressLine(now, TerminalColumns(STDERR_FILENO));
    return Write(STDERR_FILENO, fmt::format("{}{}", kClearLine, bar), patience_);
  }
  const std::string line = log_.Next(now);
  return line.empty() || WriteLine(STDERR_FILENO, line, patience_);
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
