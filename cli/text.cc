#include "cli/text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

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
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const std::string_view suffix : {"iB", "B"}) {
    if (unit.size() > 1 && unit.ends_with(suffix)) unit.remove_suffix(suffix.size());
  }
  constexpr std::string_view kPrefixes = "KMGT";
  const std::size_t power = unit.empty() ? 0 : kPrefixes.find(unit[0] & ~0x20) + 1;
  const unsigned shift = static_cast<unsigned>(10 * power);
  if (error != std::errc() || unit.size() > 1 || (!unit.empty() && power == 0) || number > ~std::uint64_t{0} >> shift) {
    throw Error(ErrorKind::kUsage, what, fmt::format("\"{}\" is not a size", text), "write it as 512M or 4G");
  }
  return ByteCount{number << shift};
}

}  // namespace vmsave
