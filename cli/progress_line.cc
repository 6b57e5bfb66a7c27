#include "cli/progress_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "cli/text.h"

namespace vmsave {
namespace {

constexpr double kSecondsBeforeRate = 0.2;
constexpr std::size_t kShortestBar = 8;
constexpr std::size_t kLongestBar = 30;
constexpr std::size_t kBarFrame = 3;  // " [" and "]"

// A phase's bytes may be seen before its total.
ByteCount DoneOf(const PhaseProgress& progress) {
  return std::min(progress.done, progress.total);
}

struct Pace {
  double bytes_per_second;
  double seconds_left;
};

// Nothing while there is too little to reckon it from.
std::optional<Pace> PaceOf(const PhaseProgress& progress) {
  if (progress.seconds < kSecondsBeforeRate || progress.moved == ByteCount{0}) return std::nullopt;
  const double rate = static_cast<double>(progress.moved.value()) / progress.seconds;
  const ByteCount left = progress.total - DoneOf(progress);
  return Pace{rate, static_cast<double>(left.value()) / rate};
}

std::string TimeLeft(double seconds) {
  if (seconds < 99) return fmt::format("{:.0f} s left", std::ceil(seconds));
  if (seconds < 99.0 * 60) return fmt::format("{:.0f} min left", std::ceil(seconds / 60));
  return fmt::format("{:.0f} h left", std::ceil(seconds / 3600));
}

std::string Bar(double share, std::size_t width) {
  const auto filled = static_cast<std::size_t>(share * static_cast<double>(width));
  return fmt::format(" [{:=<{}}{: <{}}]", "", filled, "", width - filled);
}

double ShareOf(const PhaseProgress& progress) {
  if (progress.total == ByteCount{0}) return 0;
  return static_cast<double>(DoneOf(progress).value()) / static_cast<double>(progress.total.value());
}

std::string DemandColumn(const std::optional<Progress::Demand>& demand) {
  if (!demand) return "";
  return fmt::format("  {:>10} demanded, {:5.1f} ms", FormatBytes(demand->bytes),
                     std::chrono::duration<double, std::milli>(demand->latency).count());
}

// In the order of their importance; each keeps its width through the phase, so that the line does not jump.
std::array<std::string, 5> Columns(const PhaseProgress& progress) {
  const std::size_t bytes_width = FormatPart(progress.total, progress.total).size();
  const std::optional<Pace> pace = PaceOf(progress);
  const auto whole_rate = pace ? static_cast<std::uint64_t>(pace->bytes_per_second) : 0;
  return {fmt::format("  {:3.0f} %", std::floor(ShareOf(progress) * 100)),
          fmt::format("  {:>{}}", FormatPart(DoneOf(progress), progress.total), bytes_width),
          DemandColumn(progress.demand), fmt::format("  {:>12}", pace ? FormatRate(ByteCount{whole_rate}, 1) : ""),
          fmt::format("  {:>11}", pace ? TimeLeft(pace->seconds_left) : "")};
}

std::string WithoutCount(const PhaseProgress& progress) {
  return fmt::format("{} ...", progress.phase);
}

std::string WithoutTrailingSpaces(const std::string& line) {
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

}  // namespace

std::string ProgressLine(const PhaseProgress& progress, std::size_t columns) {
  const std::size_t room = std::max<std::size_t>(columns, 1) - 1;
  if (progress.total == ByteCount{0}) return WithoutCount(progress).substr(0, room);
  std::string line(progress.phase);
  std::string behind_bar;
  std::size_t reserved = 0;  // the percentage goes before the bar, the bar before the rest
  for (const std::string& column : Columns(progress)) {
    if (line.size() + reserved + behind_bar.size() + column.size() > room) break;
    behind_bar += column;
    reserved = kBarFrame + kShortestBar;
  }
  const std::size_t used = line.size() + behind_bar.size();
  if (used + kBarFrame + kShortestBar <= room) {
    line += Bar(ShareOf(progress), std::min(kLongestBar, room - used - kBarFrame));
  }
  return WithoutTrailingSpaces(line + behind_bar).substr(0, room);
}

std::string ProgressLog::Next(const PhaseProgress& progress) {
  const auto tenths = static_cast<unsigned>(ShareOf(progress) * 10);
  if (progress.phase == phase_ && tenths <= tenths_) return "";
  phase_ = progress.phase;
  tenths_ = tenths;
  if (progress.total == ByteCount{0}) return WithoutCount(progress);
  return WithoutTrailingSpaces(fmt::format("{}{}", progress.phase, fmt::join(Columns(progress), "")));
}

nlohmann::json ProgressJson(const PhaseProgress& progress) {
  const std::optional<Pace> pace = PaceOf(progress);
  const bool has_end = progress.total > ByteCount{0};
  nlohmann::json line{{"phase", progress.phase},
                      {"done", progress.done.value()},
                      {"total", progress.total.value()},
                      {"bytes_per_second", pace ? static_cast<std::uint64_t>(pace->bytes_per_second) : 0},
                      {"eta_seconds", pace && has_end ? nlohmann::json(pace->seconds_left) : nlohmann::json()}};
  if (progress.demand) {
    line["demanded"] = progress.demand->bytes.value();
    line["demand_p99_seconds"] = std::chrono::duration<double>(progress.demand->latency).count();
  }
  return {{"progress", line}};
}

}  // namespace vmsave
