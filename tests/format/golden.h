// The worked example of format/FORMAT.md, byte by byte. It was put together from the document, with another
// implementation's hashes, and must not be made again with the code that it checks.
//
// The guest: machine "pc-i440fx-7.2"; one block "pc.ram" of two pages, page 0 zero, page 1 with byte i = 7 i + 3 mod
// 256; ram's section id 2; description "<domain/>"; running.
#pragma once

#include <cstdint>

#include "tests/format/byte_strings.h"

namespace vmsave::golden {

inline constexpr std::string_view kDescription = "<domain/>";
inline constexpr std::uint32_t kDataLength = 65546;
inline constexpr std::uint64_t kStreamStart = 65638;

inline constexpr std::string_view kHeaderV2 =
    "4c69627669727451656d756453617665020000000a0001000100000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000";

inline constexpr std::string_view kHeaderV3 =
    "4c69627669727451656d756453617665030000000a0001000100000006000000"
    "00000000564d5333000000000000000067201000000000000030100000000000"
    "7e00000000000000ddb72f5f37133159000000000000000000000000";

// Version 2's stream: up to page 1's bytes; behind them.
inline constexpr std::string_view kLegacyHead =
    "5145564d00000003070000000d70632d6934343066782d372e32010000000203"
    "72616d000000000000000400000000000020040670632e72616d000000000000"
    "200000000000000000107e00000002020000000200000000000000020670632e"
    "72616d000000000000001028";
inline constexpr std::string_view kRamEnd = "00000000000000107e00000002030000000200000000000000107e00000002";

inline constexpr std::string_view kDeviceState =
    "04000000070574696d6572000000000000000211223344556677887e00000007"
    "0006000000227b22706167655f73697a65223a20343039362c20226465766963"
    "6573223a205b5d7d";

// Version 3's stream, up to the bitmap; kRamEnd and kDeviceState stand behind the pages.
inline constexpr std::string_view kMappedHead =
    "5145564d00000003070000000d70632d6934343066782d372e32051a636f6e66"
    "696775726174696f6e2f6361706162696c697469657300000001000000010a6d"
    "61707065642d72616d01000000020372616d0000000000000004000000000000"
    "20040670632e72616d0000000000002000000000010000000000001000000000"
    "00000100f30000000000100000";
inline constexpr std::string_view kBitmap = "0200000000000000";
inline constexpr std::uint64_t kBitmapOffset = 65779;
inline constexpr std::uint64_t kPagesOffset = 1048576;
inline constexpr std::uint64_t kRamEndOffset = 1056768;
inline constexpr std::uint64_t kDeviceStateOffset = 1056799;
inline constexpr std::uint64_t kStreamEnd = 1056871;
inline constexpr std::uint64_t kIntegrityOffset = 1060864;
inline constexpr std::uint64_t kFileLength = 1060990;

inline constexpr std::string_view kIntegrityTable =
    "564d533348415348010000000100000000000100020000000100000066000100"
    "00000000950000000000000004d8d42f983d14dc002010000000000067000000"
    "0000000001392abc3df6af2e0600000070632e72616d00200000000000000010"
    "000000000000ffffffffffffffff7ee32b84468742d7287280eaca1ee0fe";

inline constexpr std::uint64_t kHeaderHash = 0x593113375f2fb7dd;
inline constexpr std::uint64_t kHeadRangeHash = 0xdc143d982fd4d804;
inline constexpr std::uint64_t kTailRangeHash = 0x2eaff63dbc2a3901;
inline constexpr std::uint64_t kPage1Hash = 0xd7428746842be37e;

inline Bytes Page1() {
  Bytes page(4096);
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::byte>((7 * i + 3) & 0xff);
  return page;
}

// Description, NUL and padding.
inline Bytes Data() {
  Bytes data = ToBytes(kDescription);
  data.resize(kDataLength);
  return data;
}

inline Bytes LegacyStream() {
  return Join({Hex(kLegacyHead), Page1(), Hex(kRamEnd), Hex(kDeviceState)});
}

inline Bytes Version3Image() {
  Bytes image(kIntegrityOffset);
  Place(image, 0, Join({Hex(kHeaderV3), Data(), Hex(kMappedHead), Hex(kBitmap)}));
  Place(image, kPagesOffset + 4096, Page1());
  Place(image, kRamEndOffset, Join({Hex(kRamEnd), Hex(kDeviceState)}));
  Place(image, kIntegrityOffset, Hex(kIntegrityTable));
  return image;
}

}  // namespace vmsave::golden
