#include "qemu/host_needs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

namespace vmsave {
namespace {

constexpr Release kQemuWithMappedRam{9, 0};
// NEWS of libvirt 11.2 has sparse. zstd came shortly before it (number 5; sparse is 6), which no release notes tell.
constexpr Release kLibvirtWithZstd{11, 2};
constexpr Release kLibvirtWithSparse{11, 2};

// Since 10.1 a release does not register the types that are six years old: of the major version less 6 and the same
// minor (QEMU's MACHINE_VER_DELETION_MAJOR). What is only foreseen is not told, since the rule may change.
constexpr Release kFirstWithThatRule{10, 1};
constexpr unsigned kMajorsThatATypeLives = 6;
constexpr Release kNewestQemuKnown{11, 1};

enum class Family { kI440fx, kQ35, kPc };

struct VersionedMachine {
  Family family;
  Release release;
};

bool TakeNumber(std::string_view& text, unsigned& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool TakePoint(std::string_view& text) {
  if (!text.starts_with('.')) return false;
  text.remove_prefix(1);
  return true;
}

// "7.2", or "4.0.1": no more than one type has a third number.
std::optional<Release> ParseRelease(std::string_view text) {
  Release release{};
  if (!TakeNumber(text, release.major) || !TakePoint(text) || !TakeNumber(text, release.minor)) return std::nullopt;
  unsigned micro = 0;
  if (TakePoint(text) && !TakeNumber(text, micro)) return std::nullopt;
  return text.empty() ? std::optional(release) : std::nullopt;
}

// A distribution puts its own name where QEMU has the version: "pc-i440fx-rhel7.6.0", "pc-q35-jammy".
std::optional<VersionedMachine> ParseMachine(std::string_view machine) {
  constexpr std::pair<std::string_view, Family> kFamilies[] = {
      {"pc-i440fx-", Family::kI440fx}, {"pc-q35-", Family::kQ35}, {"pc-", Family::kPc}};
  for (const auto& [prefix, family] : kFamilies) {
    if (!machine.starts_with(prefix)) continue;
    const std::optional<Release> release = ParseRelease(machine.substr(prefix.size()));
    if (release) return VersionedMachine{family, *release};
  }
  return std::nullopt;
}

Release RemovedByRule(Release release) {
  return std::max(kFirstWithThatRule, Release{release.major + kMajorsThatATypeLives, release.minor});
}

// Before there was a rule: QEMU's "removed features", commits cc425b5ddf (pc-0.10) and 86165b499e (q35).
Release RemovedIn(const VersionedMachine& machine) {
  const Release release = machine.release;
  switch (machine.family) {
    case Family::kPc:
      if (release < Release{0, 12}) return {4, 0};
      return release < Release{1, 0} ? Release{5, 0} : Release{6, 0};
    case Family::kQ35:
      if (release < Release{2, 4}) return {2, 6};
      break;
    case Family::kI440fx:
      if (release < Release{2, 0}) return {8, 2};
      if (release < Release{2, 4}) return {9, 1};
      break;
  }
  return RemovedByRule(release);
}

}  // namespace

std::string AsText(Release release) {
  return fmt::format("{}.{}", release.major, release.minor);
}

MachineReleases ReleasesWith(std::string_view machine) {
  const std::optional<VersionedMachine> versioned = ParseMachine(machine);
  if (!versioned) return {};
  const Release removed_in = RemovedIn(*versioned);
  return {versioned->release, removed_in <= kNewestQemuKnown ? std::optional(removed_in) : std::nullopt};
}

Readers QemuAlone(ImageKind kind) {
  switch (kind) {
    case ImageKind::kStream:
    case ImageKind::kBareStream:
      return {};
    case ImageKind::kCompressed:
      return {.none = true};
    case ImageKind::kVersion3:
    case ImageKind::kLibvirtSparse:
    case ImageKind::kBareMappedRam:
      break;
  }
  return {.since = kQemuWithMappedRam};
}

Readers Virsh(ImageKind kind, BodyFormat format) {
  switch (kind) {
    case ImageKind::kVersion3:
    case ImageKind::kBareStream:
    case ImageKind::kBareMappedRam:
      return {.none = true};
    case ImageKind::kLibvirtSparse:
      return {.since = kLibvirtWithSparse};
    case ImageKind::kStream:
    case ImageKind::kCompressed:
      break;
  }
  if (format == BodyFormat::kZstd) return {.since = kLibvirtWithZstd};
  return {};
}

}  // namespace vmsave
