#include "format/run_state.h"

#include <algorithm>

#include "format/bytes.h"
#include "format/qemu_stream.h"

namespace vmsave {
namespace {

constexpr std::string_view kName = "globalstate";
constexpr std::size_t kBeforeName = 1 + 4 + 1;  // the section's type and number, the name's length
constexpr std::size_t kVersions = 4 + 4;        // instance and version
constexpr std::size_t kMaxRunState = 100;       // with its NUL

// `section` begins with a section's type byte.
std::optional<std::string> RunStateOfSection(std::span<const std::byte> section) {
  constexpr std::size_t kHead = kBeforeName + kName.size() + kVersions + 4;
  if (section.size() < kHead || section[0] != static_cast<std::byte>(SectionType::kFull)) return std::nullopt;
  if (section[kBeforeName - 1] != static_cast<std::byte>(kName.size())) return std::nullopt;
  const auto length = GetBigEndian<std::uint32_t>(section.subspan(kHead - 4));
  if (length < 2 || length > kMaxRunState || section.size() - kHead < length) return std::nullopt;
  return AsText(section.subspan(kHead, length - 1));
}

}  // namespace

std::optional<std::string> RunStateIn(std::span<const std::byte> device_state) {
  std::optional<std::string> found;
  const std::span<const std::byte> name = AsBytes(kName);
  auto from = device_state.begin();
  while (true) {
    const auto at = std::search(from, device_state.end(), name.begin(), name.end());
    if (at == device_state.end()) return found;
    from = at + 1;
    const auto offset = static_cast<std::size_t>(at - device_state.begin());
    if (offset < kBeforeName) continue;
    const std::optional<std::string> state = RunStateOfSection(device_state.subspan(offset - kBeforeName));
    if (state && found && *state != *found) return std::nullopt;
    if (state) found = state;
  }
}

}  // namespace vmsave
