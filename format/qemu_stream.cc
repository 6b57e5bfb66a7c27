#include "format/qemu_stream.h"

#include <algorithm>

namespace vmsave {
namespace {

constexpr std::string_view kRamSection = "ram";
constexpr std::string_view kCapabilitiesSubsection = "configuration/capabilities";

void AppendType(ByteWriter& out, SectionType type) {
  out.AppendBigEndian(static_cast<std::uint8_t>(type));
}

void AppendShortString(ByteWriter& out, std::string_view text) {
  out.AppendBigEndian(static_cast<std::uint8_t>(text.size()));
  out.Append(text);
}

void AppendConfiguration(ByteWriter& out, std::string_view machine, std::span<const std::string_view> capabilities) {
  AppendType(out, SectionType::kConfiguration);
  out.AppendBigEndian(static_cast<std::uint32_t>(machine.size()));
  out.Append(machine);
  if (capabilities.empty()) return;
  AppendType(out, SectionType::kSubsection);
  AppendShortString(out, kCapabilitiesSubsection);
  out.AppendBigEndian<std::uint32_t>(1);
  out.AppendBigEndian(static_cast<std::uint32_t>(capabilities.size()));
  for (const std::string_view capability : capabilities) AppendShortString(out, capability);
}

}  // namespace

void AppendStreamHeader(ByteWriter& out, const StreamFrame& frame, std::span<const std::string_view> capabilities) {
  out.AppendBigEndian(kStreamMagic);
  out.AppendBigEndian(kStreamVersion);
  AppendConfiguration(out, frame.machine, capabilities);
}

void AppendRamStart(ByteWriter& out, const StreamFrame& frame, ByteCount total_ram) {
  AppendType(out, SectionType::kStart);
  out.AppendBigEndian(frame.ram_section_id);
  AppendShortString(out, kRamSection);
  out.AppendBigEndian<std::uint32_t>(0);
  out.AppendBigEndian(kRamSectionVersion);
  out.AppendBigEndian(total_ram.value() | ram_flag::kMemSize);
}

void AppendStreamStart(ByteWriter& out, const StreamFrame& frame, std::span<const std::string_view> capabilities,
                       ByteCount total_ram) {
  AppendStreamHeader(out, frame, capabilities);
  AppendRamStart(out, frame, total_ram);
}

void AppendBlockEntry(ByteWriter& out, std::string_view name, ByteCount length) {
  AppendShortString(out, name);
  out.AppendBigEndian(length.value());
}

void AppendBlockList(ByteWriter& out, const StreamFrame& frame, std::span<const BlockShape> blocks) {
  ByteCount total;
  for (const BlockShape& block : blocks) total += block.length;
  AppendStreamStart(out, frame, {}, total);
  for (const BlockShape& block : blocks) AppendBlockEntry(out, block.name, block.length);
}

void AppendRamSectionEnd(ByteWriter& out, const StreamFrame& frame) {
  out.AppendBigEndian(ram_flag::kEndOfSection);
  AppendType(out, SectionType::kFooter);
  out.AppendBigEndian(frame.ram_section_id);
}

void AppendRamPart(ByteWriter& out, const StreamFrame& frame) {
  AppendType(out, SectionType::kPart);
  out.AppendBigEndian(frame.ram_section_id);
}

void AppendRamEnd(ByteWriter& out, const StreamFrame& frame) {
  if (frame.switchover_start) {
    AppendType(out, SectionType::kCommand);
    out.AppendBigEndian(kSwitchoverStart);
    out.AppendBigEndian<std::uint16_t>(0);
  }
  AppendType(out, SectionType::kEnd);
  out.AppendBigEndian(frame.ram_section_id);
  AppendRamSectionEnd(out, frame);
}

void AppendLegacyHead(ByteWriter& out, const StreamFrame& frame, std::span<const BlockShape> blocks) {
  AppendBlockList(out, frame, blocks);
  AppendRamSectionEnd(out, frame);
  AppendRamPart(out, frame);
}

void AppendLegacyTail(ByteWriter& out, const StreamFrame& frame, std::span<const std::byte> device_state) {
  AppendRamSectionEnd(out, frame);
  AppendRamEnd(out, frame);
  out.Append(device_state);
}

RecordHead MakeRecordHead(std::string_view block, PageIndex page, bool present, bool continues) {
  RecordHead head;
  const std::uint64_t flags = (present ? ram_flag::kPage : ram_flag::kZero) | (continues ? ram_flag::kContinue : 0);
  PutBigEndian(std::span(head.storage), page.value() * kPageBytes | flags);
  head.size = 8;
  if (continues) return head;
  head.storage[head.size++] = static_cast<std::byte>(block.size());
  std::ranges::copy(AsBytes(block), head.storage.begin() + static_cast<std::ptrdiff_t>(head.size));
  head.size += block.size();
  return head;
}

// A device's buffer can hold bytes that look like EOF and VMDESCRIPTION, put there by the guest: where one fits up to
// the last byte, it is the real one, and the first that fits is taken only where other bytes follow the stream.
std::optional<std::size_t> FindStreamEnd(std::span<const std::byte> bytes) {
  constexpr std::size_t kPrefix = 6;  // EOF, VMDESCRIPTION, u32 length
  std::optional<std::size_t> first_end;
  for (std::size_t at = 0; at + kPrefix < bytes.size(); ++at) {
    if (bytes[at] != std::byte{0} || bytes[at + 1] != static_cast<std::byte>(SectionType::kVmDescription)) continue;
    const std::size_t length = GetBigEndian<std::uint32_t>(bytes.subspan(at + 2));
    if (length < 2 || length > bytes.size() - at - kPrefix) continue;
    const std::span<const std::byte> json = bytes.subspan(at + kPrefix, length);
    if (json.front() != std::byte{'{'} || json.back() != std::byte{'}'}) continue;
    const std::size_t end = at + kPrefix + length;
    if (end == bytes.size()) return end;
    if (!first_end) first_end = end;
  }
  return first_end;
}

}  // namespace vmsave
