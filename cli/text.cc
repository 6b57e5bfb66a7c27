#include "cli/text.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <limits>

#include "cli/command_line.h"

namespace vmsave {

namespace {

struct Unit {
  std::string_view name;
  double bytes;
  int decimals;
};

// The unit that keeps a number of bytes short.
Unit UnitOf(ByteCount bytes) {
  constexpr std::array kNames{"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < ByteCount{1024}) return {"bytes", 1, 0};
  Unit unit{kNames[0], 1024, 1};
  // 1023.95 would be printed as 1024.0.
  for (std::size_t i = 1; i < kNames.size() && static_cast<double>(bytes.value()) / unit.bytes >= 1023.95; ++i) {
    unit = {kNames[i], unit.bytes * 1024, 1};
  }
  return unit;
}

std::string Number(ByteCount bytes, const Unit& unit) {
  return fmt::format("{:.{}f}", static_cast<double>(bytes.value()) / unit.bytes, unit.decimals);
}

}  // namespace

std::string FormatBytes(ByteCount bytes) {
  const Unit unit = UnitOf(bytes);
  return fmt::format("{} {}", Number(bytes, unit), unit.name);
}

std::string FormatPart(ByteCount part, ByteCount whole) {
  const Unit unit = UnitOf(whole);
  return fmt::format("{} of {} {}", Number(part, unit), Number(whole, unit), unit.name);
}

std::string FormatRate(ByteCount bytes, double seconds) {
  if (seconds <= 0) return "-";
  const double rate = std::round(static_cast<double>(bytes.value()) / seconds);
  return FormatBytes(ByteCount{static_cast<std::uint64_t>(rate)}) + "/s";
}

std::string FormatSeconds(double seconds) {
  if (seconds < 0.1) return fmt::format("{} ms", std::llround(seconds * 1000));
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
  if (bytes != kTooLarge && !text.starts_with('-')) return ByteCount{bytes};  // CLI11 takes -5 for 2^64-5
  throw UsageError(what, fmt::format("\"{}\" is not a size", text), "write it as 512M or 4G");
}

}  // namespace vmsave
