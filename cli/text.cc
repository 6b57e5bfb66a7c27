#include "cli/text.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <limits>

namespace vmsave {

std::string FormatBytes(ByteCount bytes) {
  constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < ByteCount{1024}) return fmt::format("{} bytes", bytes.value());
  double value = static_cast<double>(bytes.value()) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string FormatRate(ByteCount bytes, double seconds) {
  if (seconds <= 0) return "-";
  const double rate = std::round(static_cast<double>(bytes.value()) / seconds);
  return FormatBytes(ByteCount{static_cast<std::uint64_t>(rate)}) + "/s";
}

std::string FormatSeconds(double seconds) {
  if (seconds < 100) return fmt::format("{:.2f} s", seconds);
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  return fmt::format("{} min {} s", whole / 60, whole % 60);
}

ByteCount ParseBytes(std::string_view text, std::string_view what) {
  // What CLI11 makes of a number that does not fit.
  constexpr std::uint64_t kTooLarge = std::numeric_limits<std::uint64_t>::max();
  std::string number(text);
  std::uint64_t bytes = kTooLarge;
  try {
    if (!CLI::AsSizeValue(false)(number).empty() || !CLI::detail::lexical_cast(number, bytes)) bytes = kTooLarge;
  } catch (const CLI::Error&) {
    bytes = kTooLarge;  // an unknown unit, or no number
  }
  if (bytes != kTooLarge) return ByteCount{bytes};
  throw Error(ErrorKind::kUsage, what, fmt::format("\"{}\" is not a size", text), "write it as 512M or 4G");
}

}  // namespace vmsave
