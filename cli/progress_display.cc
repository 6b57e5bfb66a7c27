#include "cli/progress_display.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "cli/text.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::milliseconds(200);
constexpr int kBarWidth = 30;
constexpr std::string_view kClearLine = "\r\x1b[K";

void Write(std::FILE* stream, const std::string& text) {
  std::fputs(text.c_str(), stream);
  std::fflush(stream);
}

void PrintJson(const nlohmann::json& object) {
  // A path or an error text may hold bytes that are no UTF-8.
  PrintLine(stdout, object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

double Share(const Progress& progress) {
  if (progress.total() == ByteCount{0}) return 0;
  return std::min(1.0, static_cast<double>(progress.done().value()) / static_cast<double>(progress.total().value()));
}

std::string Bar(const Progress& progress, double seconds) {
  if (progress.total() == ByteCount{0}) return fmt::format("{} ...", progress.phase());
  const double share = Share(progress);
  const int filled = static_cast<int>(share * kBarWidth);
  return fmt::format("{} [{:=<{}}{: <{}}] {:3.0f} %  {} of {}  {}", progress.phase(), "", filled, "",
                     kBarWidth - filled, share * 100, FormatBytes(progress.done()), FormatBytes(progress.total()),
                     FormatRate(progress.done(), seconds));
}

nlohmann::json AsJson(const Progress& progress, double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(progress.done().value()) / seconds : 0;
  const double left = static_cast<double>(progress.total().value()) - static_cast<double>(progress.done().value());
  nlohmann::json eta = rate > 0 ? nlohmann::json(std::max(0.0, left / rate)) : nlohmann::json();
  return {{"progress",
           {{"phase", progress.phase()},
            {"done", progress.done().value()},
            {"total", progress.total().value()},
            {"bytes_per_second", static_cast<std::uint64_t>(rate)},
            {"eta_seconds", std::move(eta)}}}};
}

}  // namespace

void PrintLine(std::FILE* stream, const std::string& line) {
  Write(stream, line + "\n");
}

ProgressStyle ParseProgressStyle(const std::string& name) {
  if (name == "bar") return ProgressStyle::kBar;
  if (name == "json") return ProgressStyle::kJson;
  if (name == "off") return ProgressStyle::kOff;
  return ::isatty(STDERR_FILENO) != 0 ? ProgressStyle::kBar : ProgressStyle::kOff;
}

ProgressDisplay::ProgressDisplay(const Progress& progress, ProgressStyle style) : progress_(progress), style_(style) {
  if (style_ == ProgressStyle::kOff) return;
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

ProgressDisplay::~ProgressDisplay() {
  Stop();
}

void ProgressDisplay::Run(const std::stop_token& stop) {
  phase_start_ = Clock::now();
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    Show();
    wake_.wait_for(lock, stop, kInterval, [] { return false; });
  }
}

void ProgressDisplay::Show() {
  if (const std::string_view phase = progress_.phase(); phase != shown_phase_) {
    shown_phase_ = phase;
    phase_start_ = Clock::now();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - phase_start_).count();
  if (style_ == ProgressStyle::kJson) {
    PrintJson(AsJson(progress_, seconds));
  } else {
    Write(stderr, fmt::format("{}{}", kClearLine, Bar(progress_, seconds)));
  }
}

void ProgressDisplay::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
  if (style_ == ProgressStyle::kBar) Write(stderr, std::string(kClearLine));
}

void ProgressDisplay::Completed(const nlohmann::json& totals) {
  Stop();
  if (style_ == ProgressStyle::kJson) PrintJson({{"completed", totals}});
}

void ProgressDisplay::Failed(const std::string& error) {
  Stop();
  if (style_ != ProgressStyle::kJson) return;
  PrintJson({{"failed", {{"error", error}, {"done", progress_.done().value()}, {"total", progress_.total().value()}}}});
}

}  // namespace vmsave
