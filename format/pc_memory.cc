#include "format/pc_memory.h"

#include <fmt/format.h>

#include <string>

namespace vmsave {
namespace {

constexpr std::uint64_t kGiB = 1 << 30;
constexpr std::uint64_t kFourGiB = 4 * kGiB;
// With more, QEMU >= 7.1 may keep clear of a hole that AMD's IOMMUs have below 1 TiB.
constexpr std::uint64_t kMostRam = 1000 * kGiB;

// Of "pc-i440fx-1.7" and "pc-1.3".
bool IsOlderThan2(std::string_view version) {
  return version.starts_with("0.") || version.starts_with("1.");
}

// How much RAM lies below 4 GiB, of a guest that has no more than fits there as a whole, or else has.
std::uint64_t LowRam(std::string_view machine, std::uint64_t ram) {
  constexpr std::string_view kQ35 = "pc-q35-";
  constexpr std::string_view kI440fx = "pc-i440fx-";
  constexpr std::string_view kOld = "pc-";
  if (machine.starts_with(kQ35)) {
    if (ram < 0xb0000000) return ram;
    return IsOlderThan2(machine.substr(kQ35.size())) ? 0xb0000000 : 2 * kGiB;
  }
  const bool i440fx = machine.starts_with(kI440fx);
  if (!i440fx && !(machine.starts_with(kOld) && IsOlderThan2(machine.substr(kOld.size())))) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot tell where the RAM of machine {} lies", machine),
                "only PCs are known: pc-i440fx and pc-q35", "take single RAM blocks");
  }
  if (ram < 0xe0000000) return ram;
  return i440fx && !IsOlderThan2(machine.substr(kI440fx.size())) ? 3 * kGiB : 0xe0000000;
}

}  // namespace

std::vector<RamRange> PcMemory(std::string_view machine, ByteCount ram) {
  const ByteCount low{LowRam(machine, ram.value())};
  if (ram.value() > kMostRam) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot tell where the RAM of machine {} lies", machine),
                fmt::format("with more than {} GiB that depends on the host's CPU", kMostRam / kGiB),
                "take single RAM blocks");
  }
  std::vector<RamRange> ranges{{GuestAddress{0}, ByteCount{0}, low}};
  if (ram > low) ranges.push_back({GuestAddress{kFourGiB}, low, ram - low});
  return ranges;
}

}  // namespace vmsave
