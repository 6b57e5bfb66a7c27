// All the ways in which vmsave takes a guest's RAM, on each QEMU that has them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/e2e/guest.h"

namespace vmsave {

struct WayToSave {
  std::string name;
  WhichQemu qemu;
  Ram ram;
  std::vector<std::string> options;  // of vmsave
};

inline std::ostream& operator<<(std::ostream& out, const WayToSave& way) {
  return out << way.name;
}

inline std::string NameOfWay(const testing::TestParamInfo<WayToSave>& info) {
  return info.param.name;
}

inline bool HasOption(const WayToSave& way, std::string_view option) {
  return std::ranges::find(way.options, option) != way.options.end();
}

// QEMU sends its pages over one connection or several, which break; a snapshot must not be broken off.
inline bool IsOverSockets(const WayToSave& way) {
  return HasOption(way, "multifd") || HasOption(way, "stream");
}

inline bool IsSnapshot(const WayToSave& way) {
  return HasOption(way, "--live=snapshot");
}

// Not read from memory.
inline bool ComesFromQemu(const WayToSave& way) {
  return way.ram == Ram::kPrivate;
}

// For tests that take long: not those that differ from another in nothing but that the guest runs meanwhile.
inline bool IsUsual(const WayToSave& way) {
  return !HasOption(way, "--live") || HasOption(way, "multifd");
}

inline std::vector<WayToSave> AllWaysToSave() {
  std::vector<WayToSave> ways;
  for (const WhichQemu qemu : {WhichQemu::kOld, WhichQemu::kNew}) {
    const std::string suffix = qemu == WhichQemu::kOld ? "Old" : "New";
    ways.push_back({"Memory3" + suffix, qemu, Ram::kFile, {"--from", "memory", "--image-version", "3"}});
    ways.push_back({"Memory2" + suffix, qemu, Ram::kFile, {"--from", "memory", "--image-version", "2"}});
    ways.push_back({"Multifd" + suffix, qemu, Ram::kPrivate, {"--from", "multifd", "--image-version", "3"}});
    ways.push_back(
        {"LiveMultifd" + suffix, qemu, Ram::kPrivate, {"--from", "multifd", "--image-version", "3", "--live"}});
    ways.push_back({"Stream" + suffix, qemu, Ram::kPrivate, {"--from", "stream", "--image-version", "2"}});
    ways.push_back(
        {"LiveStream" + suffix, qemu, Ram::kPrivate, {"--from", "stream", "--image-version", "2", "--live"}});
    ways.push_back({"Snapshot" + suffix, qemu, Ram::kPrivate, {"--live=snapshot", "--image-version", "3"}});
  }
  ways.push_back({"Qemu", WhichQemu::kNew, Ram::kPrivate, {"--from", "qemu", "--image-version", "3"}});
  ways.push_back({"LiveQemu", WhichQemu::kNew, Ram::kPrivate, {"--from", "qemu", "--image-version", "3", "--live"}});
  return ways;
}

// Those that `is_wanted`, a predicate of a way.
template <class Predicate>
std::vector<WayToSave> WaysToSave(const Predicate& is_wanted) {
  std::vector<WayToSave> ways = AllWaysToSave();
  std::erase_if(ways, [&](const WayToSave& way) { return !is_wanted(way); });
  return ways;
}

}  // namespace vmsave
