// QEMU's migration stream: its constants, and the parts that vmsave writes (FORMAT.md, "QEMU stream"; QEMU
// migration/savevm.c and migration/ram.c). All integers are big-endian.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/bytes.h"
#include "format/units.h"

namespace vmsave {

inline constexpr std::uint32_t kStreamMagic = 0x5145564d;  // "QEVM"
inline constexpr std::uint32_t kStreamVersion = 3;
inline constexpr std::uint32_t kRamSectionVersion = 4;
inline constexpr std::string_view kMappedRamCapability = "mapped-ram";
inline constexpr std::string_view kIgnoreSharedCapability = "x-ignore-shared";

// The type byte in front of every section.
enum class SectionType : std::uint8_t {
  kEof = 0x00,
  kStart = 0x01,
  kPart = 0x02,
  kEnd = 0x03,
  kFull = 0x04,
  kSubsection = 0x05,
  kVmDescription = 0x06,
  kConfiguration = 0x07,
  kCommand = 0x08,
  kFooter = 0x7e,
};

// The low 12 bits of a ram record's first word.
namespace ram_flag {
inline constexpr std::uint64_t kZero = 0x02;
inline constexpr std::uint64_t kMemSize = 0x04;
inline constexpr std::uint64_t kPage = 0x08;
inline constexpr std::uint64_t kEndOfSection = 0x10;
inline constexpr std::uint64_t kContinue = 0x20;
inline constexpr std::uint64_t kMultifdFlush = 0x200;
inline constexpr std::uint64_t kMask = 0xfff;
}  // namespace ram_flag

inline constexpr std::uint16_t kSwitchoverStart = 11;  // the command before ram's END, from machine types >= 8.1

// The parts of a stream's frame that differ from guest to guest.
struct StreamFrame {
  std::string machine;               // "pc-i440fx-7.2"
  std::uint32_t ram_section_id = 1;  // chosen by the QEMU that saved
  bool switchover_start = false;
};

struct BlockShape {
  std::string name;
  ByteCount length;  // a multiple of the page size
};

// The stream's first bytes: magic, version, CONFIGURATION with the capabilities named.
void AppendStreamHeader(ByteWriter& out, const StreamFrame& frame, std::span<const std::string_view> capabilities);

// ram START up to the block list.
void AppendRamStart(ByteWriter& out, const StreamFrame& frame, ByteCount total_ram);

// Both of these.
void AppendStreamStart(ByteWriter& out, const StreamFrame& frame, std::span<const std::string_view> capabilities,
                       ByteCount total_ram);

// One entry of the block list, without mapped-ram header. REQUIRES: name.size() <= 255.
void AppendBlockEntry(ByteWriter& out, std::string_view name, ByteCount length);

// AppendStreamStart without capabilities, and all of the block list. REQUIRES: names of at most 255 bytes.
void AppendBlockList(ByteWriter& out, const StreamFrame& frame, std::span<const BlockShape> blocks);

// Ends the body of a ram section: EOS and footer.
void AppendRamSectionEnd(ByteWriter& out, const StreamFrame& frame);

// Opens a PART section for records.
void AppendRamPart(ByteWriter& out, const StreamFrame& frame);

// Everything from behind the last record's section up to the device state: SWITCHOVER_START where the guest's machine
// sends it, and an empty ram END.
void AppendRamEnd(ByteWriter& out, const StreamFrame& frame);

// A sequential stream is AppendLegacyHead, records of pages, AppendLegacyTail.

// From the magic to the opening of a PART section, by way of the block list. REQUIRES: names of at most 255 bytes.
void AppendLegacyHead(ByteWriter& out, const StreamFrame& frame, std::span<const BlockShape> blocks);

// Everything behind the last record. `device_state`: up to the stream's end, EOF and VMDESCRIPTION included.
void AppendLegacyTail(ByteWriter& out, const StreamFrame& frame, std::span<const std::byte> device_state);

// What stands in front of a page's bytes, or of a zero page's fill byte: offset and flags, and the block's name unless
// `continues`.
inline constexpr std::size_t kMaxRecordHeadBytes = 8 + 1 + 255;
struct RecordHead {
  std::array<std::byte, kMaxRecordHeadBytes> storage;
  std::size_t size;
  std::span<const std::byte> bytes() const { return std::span(storage).first(size); }
};
// REQUIRES: block.size() <= 255.
RecordHead MakeRecordHead(std::string_view block, PageIndex page, bool present, bool continues);

// Bytes of a page's record.
constexpr std::uint64_t PageRecordLength(std::size_t name_length, bool present, bool continues) {
  return 8 + (continues ? 0 : 1 + name_length) + (present ? kPageBytes : 1);
}

// Where the stream ends that goes on in `bytes` (its device state, or the last part of it): behind EOF and
// VMDESCRIPTION. Bytes behind it belong to somebody else. Nothing where there is no VMDESCRIPTION: the stream was cut
// short, or its guest runs with suppress-vmdesc.
std::optional<std::size_t> FindStreamEnd(std::span<const std::byte> bytes);

}  // namespace vmsave
