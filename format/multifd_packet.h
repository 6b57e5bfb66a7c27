// What QEMU's multifd channels carry: one hello each, then packets, each followed by the bytes of its normal pages
// (FORMAT.md, "QEMU stream"; QEMU migration/multifd.c of 4.0 to 10.0). All integers are big-endian. What arrives is
// hostile: everything that decodes without an error is safe to use, except that pages must still be checked against
// the length of their block (CheckPagesWithin). Decoding allocates nothing but an error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "format/units.h"

namespace vmsave {

inline constexpr std::uint32_t kMultifdMagic = 0x11223344;  // a main stream starts with kStreamMagic instead
inline constexpr std::uint32_t kMultifdVersion = 1;
inline constexpr unsigned kMaxMultifdChannels = 255;  // a hello has one byte for it
inline constexpr std::size_t kMultifdHelloBytes = 64;
inline constexpr std::size_t kMultifdPagesPerPacket = 128;
inline constexpr std::size_t kMultifdNameBytes = 256;
inline constexpr std::size_t kMultifdHeaderBytes = 64 + kMultifdNameBytes;
inline constexpr std::size_t kMultifdPacketBytes = kMultifdHeaderBytes + 8 * kMultifdPagesPerPacket;

// The bits of a packet's flags.
namespace multifd_flag {
inline constexpr std::uint32_t kSync = 1;
inline constexpr std::uint32_t kCompression = 0x1f << 1;  // 1 zlib, 2 zstd, 4 qpl, 8 uadk, 16 qatzip
inline constexpr std::uint32_t kDeviceState = 32 << 1;    // QEMU >= 10.0, with VFIO devices
}  // namespace multifd_flag

// The first bytes of a channel.
struct MultifdHello {
  std::array<std::byte, 16> uuid{};  // of the sending guest; a receiving QEMU refuses any but its own (query-uuid)
  std::uint8_t channel = 0;          // 0 .. number of channels - 1

  friend bool operator==(const MultifdHello&, const MultifdHello&) = default;
};

std::array<std::byte, kMultifdHelloBytes> EncodeMultifdHello(const MultifdHello& hello);

// Checks length, magic and version; what QEMU leaves unused is not looked at: QEMU 4.0 sends whatever its memory held.
// Throws Error{kDamaged}.
MultifdHello DecodeMultifdHello(std::span<const std::byte> bytes);

// A packet: pages of one RAM block. On the wire the bytes of its normal pages follow it, in the order of pages();
// a zero page has none. Large (1.3 KiB); made once per channel and filled again for every packet.
class MultifdPacket {
 public:
  // Empties it. REQUIRES: block.size() < kMultifdNameBytes.
  void Start(std::uint64_t number, std::string_view block);

  // All normal pages come before the first zero page, no page comes twice. REQUIRES: page_count() <
  // kMultifdPagesPerPacket.
  void AddNormal(PageIndex page);
  void AddZero(PageIndex page);

  // Every channel sends a packet with this set at each synchronisation point. It may carry pages: they belong before
  // the point.
  void set_sync(bool sync) { sync_ = sync; }
  bool sync() const { return sync_; }

  std::uint64_t number() const { return number_; }
  std::string_view block() const {
    return name_.data();
  }  // valid until the packet changes; means nothing without pages
  std::size_t page_count() const { return normal_ + zero_; }
  std::span<const PageIndex> normal_pages() const { return std::span(pages_).first(normal_); }
  std::span<const PageIndex> zero_pages() const { return std::span(pages_).subspan(normal_, zero_); }

  // Bytes that follow the packet on the wire.
  ByteCount payload() const { return ByteCount{normal_ * kPageBytes}; }

  // Throws Error{kDamaged} naming packet, block and page where a page lies beyond the end of a block that long.
  void CheckPagesWithin(ByteCount block_length) const;

  void Encode(std::span<std::byte, kMultifdPacketBytes> out) const;

  // Takes the packet's place on all of it. Refused with Error{kDamaged}, naming the packet by its number: a wrong
  // length, magic or version, any flag but SYNC, more pages than a packet holds, pages that are not aligned or come
  // twice, a name without an end, pages without a name, a payload that is not whole pages, unknown fields in use. The
  // packet is unusable then until the next Start or Decode. The payload's length is checked only where there are normal
  // pages: QEMU 7.2 leaves an old one in packets without.
  void Decode(std::span<const std::byte> bytes);

 private:
  void DecodeCounts(std::span<const std::byte> bytes);
  void DecodePages(std::span<const std::byte> bytes);
  void CheckPagesDiffer() const;
  [[noreturn]] void Refuse(std::string_view why, std::string_view advice = "") const;

  bool sync_ = false;
  std::uint64_t number_ = 0;
  std::size_t normal_ = 0;
  std::size_t zero_ = 0;
  std::array<char, kMultifdNameBytes> name_{};
  std::array<PageIndex, kMultifdPagesPerPacket> pages_{};
};

}  // namespace vmsave
