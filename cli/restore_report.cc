#include "cli/restore_report.h"

#include <fmt/format.h>

#include "cli/text.h"

namespace vmsave {
namespace {

double Milliseconds(LatencyCount::Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace

std::string AsText(const RestoreSummary& summary, const std::string& guest) {
  const std::string present = summary.present ? fmt::format(", {} present", FormatBytes(*summary.present)) : "";
  const std::string why = summary.why_not_faster.empty() ? "" : fmt::format(" ({})", summary.why_not_faster);
  const std::string unchecked = summary.pages_unchecked ? ", checksums of its pages not looked at" : "";
  return fmt::format("restored {}: {} RAM{}, {}, via {}{}{}, {}", guest, FormatBytes(summary.ram), present,
                     FormatSeconds(summary.elapsed.count()), RestoreWayName(summary.way), why, unchecked,
                     summary.running ? "running" : "paused");
}

nlohmann::json AsJson(const RestoreSummary& summary, const std::string& image) {
  return {{"image", image},
          {"via", RestoreWayName(summary.way)},
          {"ram_bytes", summary.ram.value()},
          {"present_bytes", summary.present ? nlohmann::json(summary.present->value()) : nlohmann::json()},
          {"pages_unchecked", summary.pages_unchecked},
          {"seconds", summary.elapsed.count()},
          {"running", summary.running}};
}

std::string AsText(const LazySummary& summary, const std::string& guest) {
  const ServingFigures& figures = summary.outcome.figures;
  const std::string end = summary.outcome.guest_ended
                              ? fmt::format("the guest ended after {}, {} not read",
                                            FormatSeconds(summary.elapsed.count()), FormatBytes(figures.left))
                              : fmt::format("all there after {}", FormatSeconds(summary.elapsed.count()));
  return fmt::format(
      "restored {}: {} RAM, {} present, {} after {}, {}; {} demanded by the guest, {} filled; it waited "
      "{} times, {:.1f} ms at most 99 times of 100, {:.1f} ms at most",
      guest, FormatBytes(summary.ram), FormatBytes(summary.present), summary.start.running ? "running" : "paused",
      FormatSeconds(summary.start.elapsed.count()), end, FormatBytes(figures.demanded), FormatBytes(figures.filled),
      figures.latency.count(), Milliseconds(figures.latency.Quantile(0.99)), Milliseconds(figures.latency.most()));
}

nlohmann::json AsJson(const LazySummary& summary, const std::string& image) {
  const ServingFigures& figures = summary.outcome.figures;
  const auto seconds = [](LatencyCount::Duration duration) { return std::chrono::duration<double>(duration).count(); };
  return {{"image", image},
          {"via", "lazy"},
          {"ram_bytes", summary.ram.value()},
          {"present_bytes", summary.present.value()},
          {"seconds_to_start", summary.start.elapsed.count()},
          {"seconds", summary.elapsed.count()},
          {"running", summary.start.running},
          {"guest_ended", summary.outcome.guest_ended},
          {"demanded_bytes", figures.demanded.value()},
          {"filled_bytes", figures.filled.value()},
          {"left_bytes", figures.left.value()},
          {"demands", figures.latency.count()},
          {"demand_p50_seconds", seconds(figures.latency.Quantile(0.5))},
          {"demand_p99_seconds", seconds(figures.latency.Quantile(0.99))},
          {"demand_most_seconds", seconds(figures.latency.most())}};
}

}  // namespace vmsave
