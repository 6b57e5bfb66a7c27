// All the ways in which vmsave takes a guest's RAM, on each QEMU that has them.
#pragma once

#include <ostream>
#include <string>
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

inline std::vector<WayToSave> WaysToSave() {
  std::vector<WayToSave> ways;
  for (const WhichQemu qemu : {WhichQemu::kOld, WhichQemu::kNew}) {
    const std::string suffix = qemu == WhichQemu::kOld ? "Old" : "New";
    ways.push_back({"Memory3" + suffix, qemu, Ram::kFile, {"--from", "memory", "--image-version", "3"}});
    ways.push_back({"Memory2" + suffix, qemu, Ram::kFile, {"--from", "memory", "--image-version", "2"}});
    ways.push_back({"Multifd" + suffix, qemu, Ram::kPrivate, {"--from", "multifd", "--image-version", "3"}});
    ways.push_back({"Stream" + suffix, qemu, Ram::kPrivate, {"--from", "stream", "--image-version", "2"}});
    ways.push_back({"Live" + suffix, qemu, Ram::kPrivate, {"--from", "multifd", "--image-version", "3", "--live"}});
    ways.push_back({"Snapshot" + suffix, qemu, Ram::kPrivate, {"--live=snapshot", "--image-version", "3"}});
  }
  ways.push_back({"Qemu", WhichQemu::kNew, Ram::kPrivate, {"--from", "qemu", "--image-version", "3"}});
  return ways;
}

}  // namespace vmsave
