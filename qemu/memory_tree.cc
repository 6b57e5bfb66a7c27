#include "qemu/memory_tree.h"

#include <fmt/format.h>

#include <charconv>

namespace vmsave {
namespace {

// Takes `prefix` from the front of `text`.
bool Skip(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Takes a hexadecimal number from the front of `text`.
std::optional<std::uint64_t> TakeHex(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// "  0000000100000000-000000017fffffff (prio 0, ram): pc.ram @0000000080000000 KVM"; the offset is left out where it is
// 0, and the accelerator's name is there with some accelerators.
std::optional<RamSection> ReadSection(std::string_view line) {
  while (Skip(line, " ")) {
  }
  const std::optional<std::uint64_t> first = TakeHex(line);
  if (!first || !Skip(line, "-")) return std::nullopt;
  const std::optional<std::uint64_t> last = TakeHex(line);
  if (!last || *last < *first || !Skip(line, " (prio ")) return std::nullopt;
  const std::size_t comma = line.find(", ");
  if (comma == std::string_view::npos) return std::nullopt;
  line.remove_prefix(comma + 2);
  if (!Skip(line, "ram): ") && !Skip(line, "nv-ram): ")) return std::nullopt;
  const std::size_t name_end = line.find(' ');
  RamSection section{std::string(line.substr(0, name_end)), GuestAddress{*first}, ByteCount{0}};
  line.remove_prefix(section.region.size());
  if (Skip(line, " @")) {
    const std::optional<std::uint64_t> offset = TakeHex(line);
    if (!offset) return std::nullopt;
    section.offset = ByteCount{*offset};
  }
  return section;
}

std::string_view TakeLine(std::string_view& text) {
  const std::size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

std::vector<RamSection> ReadMemoryTree(std::string_view text) {
  std::vector<RamSection> sections;
  bool in_system_memory = false;
  while (!text.empty()) {
    const std::string_view line = TakeLine(text);
    if (line.starts_with("FlatView #")) in_system_memory = false;
    if (line.starts_with(" AS \"memory\", root: ")) in_system_memory = true;
    if (!in_system_memory) continue;
    if (std::optional<RamSection> section = ReadSection(line)) sections.push_back(*std::move(section));
  }
  return sections;
}

std::optional<std::uint64_t> ReadHostAddress(std::string_view text, GuestAddress address, std::string_view region) {
  if (!Skip(text, fmt::format("Host virtual address for {:#x} ({}) is 0x", address.value(), region))) {
    return std::nullopt;
  }
  const std::optional<std::uint64_t> host_address = TakeHex(text);
  const bool ends_there = text.empty() || text.front() == '\r' || text.front() == '\n';
  return ends_there ? host_address : std::nullopt;
}

}  // namespace vmsave
