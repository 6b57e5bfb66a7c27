#include "format/save_header.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "format/page_hash.h"
#include "tests/format/golden.h"

namespace vmsave {
namespace {

SaveHeader ExampleV2() {
  SaveHeader header;
  header.state = ImageState::kComplete;
  header.data_length = golden::kDataLength;
  header.was_running = true;
  return header;
}

SaveHeader ExampleV3() {
  SaveHeader header = ExampleV2();
  header.version = 3;
  header.format = BodyFormat::kSparse;
  header.extension = HeaderExtension{.stream_end = FileOffset{golden::kStreamEnd},
                                     .integrity_offset = FileOffset{golden::kIntegrityOffset},
                                     .integrity_length = ByteCount{126},
                                     .header_hash = golden::kHeaderHash};
  return header;
}

SaveHeader Decode(const Bytes& bytes) {
  return DecodeSaveHeader(std::span(bytes).first<kSaveHeaderBytes>(), "vm1.sav");
}

void ExpectRefused(const Bytes& bytes, std::string_view words) {
  ExpectDamaged([&] { Decode(bytes); }, words);
}

template <class Int>
Bytes With(std::string_view golden_hex, std::size_t offset, Int value) {
  Bytes bytes = Hex(golden_hex);
  PutLittleEndian<Int>(std::span(bytes).subspan(offset), value);
  return bytes;
}
Bytes WithV2(std::size_t offset, std::uint32_t value) {
  return With(golden::kHeaderV2, offset, value);
}
Bytes WithV3(std::size_t offset, std::uint32_t value) {
  return With(golden::kHeaderV3, offset, value);
}

// As a big-endian host writes it: the five fields swapped.
Bytes Swapped(Bytes bytes) {
  for (std::ptrdiff_t at = 16; at < 36; at += 4) std::reverse(bytes.begin() + at, bytes.begin() + at + 4);
  return bytes;
}

TEST(HeaderTest, EncodesTheGoldenBytesOfVersion2) {
  EXPECT_EQ(ToHex(EncodeSaveHeader(ExampleV2())), golden::kHeaderV2);
}

TEST(HeaderTest, EncodesTheGoldenBytesOfVersion3) {
  EXPECT_EQ(ToHex(EncodeSaveHeader(ExampleV3())), golden::kHeaderV3);
}

TEST(HeaderTest, DecodesVersion2) {
  const SaveHeader header = Decode(Hex(golden::kHeaderV2));
  EXPECT_EQ(header.state, ImageState::kComplete);
  EXPECT_EQ(header.version, 2U);
  EXPECT_EQ(header.data_length, golden::kDataLength);
  EXPECT_TRUE(header.was_running);
  EXPECT_EQ(header.format, BodyFormat::kRaw);
  EXPECT_EQ(header.cookie_offset, 0U);
  EXPECT_FALSE(header.extension);
  EXPECT_EQ(header.stream_start(), FileOffset{golden::kStreamStart});
}

TEST(HeaderTest, DecodesVersion3) {
  const SaveHeader header = Decode(Hex(golden::kHeaderV3));
  EXPECT_EQ(header.version, 3U);
  EXPECT_EQ(header.format, BodyFormat::kSparse);
  ASSERT_TRUE(header.extension);
  EXPECT_EQ(header.extension->features_incompatible, 0U);
  EXPECT_EQ(header.extension->features_compatible, 0U);
  EXPECT_EQ(header.extension->stream_end, FileOffset{golden::kStreamEnd});
  EXPECT_EQ(header.extension->integrity_offset, FileOffset{golden::kIntegrityOffset});
  EXPECT_EQ(header.extension->integrity_length, ByteCount{126});
  EXPECT_EQ(header.extension->header_hash, golden::kHeaderHash);
}

TEST(HeaderTest, Version1HasNoFormatAndNoCookie) {
  Bytes bytes = WithV2(16, 1);
  PutLittleEndian<std::uint32_t>(std::span(bytes).subspan(28), 77);
  PutLittleEndian<std::uint32_t>(std::span(bytes).subspan(32), 0xffffffff);
  const SaveHeader header = Decode(bytes);
  EXPECT_EQ(header.version, 1U);
  EXPECT_EQ(header.format, BodyFormat::kRaw);
  EXPECT_EQ(header.cookie_offset, 0U);
  EXPECT_TRUE(header.was_running);
  EXPECT_EQ(header.data_length, golden::kDataLength);
}

TEST(HeaderTest, ReadsLibvirtsSparseImage) {
  const SaveHeader header = Decode(WithV2(28, 6));
  EXPECT_EQ(header.version, 2U);
  EXPECT_EQ(header.format, BodyFormat::kSparse);
  EXPECT_FALSE(header.extension);
}

TEST(HeaderTest, ReadsEveryBodyFormatByItsName) {
  const std::string_view names[] = {"raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"};
  for (std::uint32_t format = 0; format < 7; ++format) {
    EXPECT_EQ(BodyFormatName(Decode(WithV2(28, format)).format), names[format]);
  }
}

TEST(HeaderTest, SwapsAHeaderFromABigEndianHost) {
  const SaveHeader header = Decode(Swapped(With<std::uint32_t>(golden::kHeaderV2, 32, 10)));
  EXPECT_EQ(header.version, 2U);
  EXPECT_EQ(header.data_length, golden::kDataLength);
  EXPECT_TRUE(header.was_running);
  EXPECT_EQ(header.cookie_offset, 10U);
  EXPECT_EQ(header.byte_order, std::endian::big);
  EXPECT_EQ(Decode(Swapped(WithV2(16, 1))).version, 1U);
  EXPECT_EQ(Decode(WithV2(16, 1)).byte_order, std::endian::little);
}

TEST(HeaderTest, KeepsTheByteOrderOfAHeader) {
  const Bytes swapped = Swapped(With<std::uint32_t>(golden::kHeaderV2, 32, 10));
  EXPECT_EQ(Decode(swapped).byte_order, std::endian::big);
  EXPECT_EQ(ToHex(EncodeSaveHeader(Decode(swapped))), ToHex(swapped));
  EXPECT_EQ(Decode(Hex(golden::kHeaderV2)).byte_order, std::endian::little);
}

TEST(HeaderTest, RefusesASwappedVersion3SinceItIsAlwaysLittleEndian) {
  ExpectRefused(Swapped(Hex(golden::kHeaderV3)), "version 50331648");
}

TEST(HeaderTest, DecodesAPartialImage) {
  Bytes bytes = Hex(golden::kHeaderV2);
  Place(bytes, 12, AsBytes("Part"));
  EXPECT_EQ(Decode(bytes).state, ImageState::kPartial);
  SaveHeader header = ExampleV2();
  header.state = ImageState::kPartial;
  EXPECT_EQ(ToHex(EncodeSaveHeader(header)), ToHex(bytes));
}

TEST(HeaderTest, RefusesEveryDamagedByteOfTheMagic) {
  for (std::size_t at = 0; at < kSaveMagicBytes; ++at) {
    Bytes bytes = Hex(golden::kHeaderV2);
    bytes[at] ^= std::byte{0x20};
    ExpectRefused(bytes, "cannot use vm1.sav: it is not a save image");
    EXPECT_FALSE(HasSaveMagic(bytes));
  }
}

TEST(HeaderTest, FindsTheMagicOnlyWhenAllOfItIsThere) {
  const Bytes bytes = Hex(golden::kHeaderV2);
  EXPECT_TRUE(HasSaveMagic(bytes));
  EXPECT_TRUE(HasSaveMagic(EncodeSaveMagic(ImageState::kPartial)));
  EXPECT_TRUE(HasSaveMagic(EncodeSaveMagic(ImageState::kComplete)));
  for (std::size_t length = 0; length < kSaveMagicBytes; ++length) {
    EXPECT_FALSE(HasSaveMagic(std::span(bytes).first(length))) << length;
  }
}

TEST(HeaderTest, RefusesVersionsThatItDoesNotKnow) {
  ExpectRefused(WithV2(16, 0), "version 0");
  ExpectRefused(WithV2(16, 4), "version 4");
  ExpectRefused(WithV2(16, 0x04000000), "version 67108864");
  ExpectRefused(WithV2(16, 0xffffffff), "reads 1 to 3");
}

TEST(HeaderTest, RefusesUnknownBodyFormat) {
  ExpectRefused(WithV2(28, 7), "unknown format 7");
  ExpectRefused(WithV2(28, 0xffffffff), "unknown format");
}

TEST(HeaderTest, RefusesAWasRunningThatIsNeitherYesNorNo) {
  ExpectRefused(WithV2(24, 2), "was_running");
  ExpectRefused(WithV3(24, 0x01000000), "was_running");
  EXPECT_FALSE(Decode(WithV2(24, 0)).was_running);
}

TEST(HeaderTest, RefusesACookieOutsideOfTheDescription) {
  EXPECT_EQ(Decode(WithV2(32, golden::kDataLength - 1)).cookie_offset, golden::kDataLength - 1);
  ExpectRefused(WithV2(32, golden::kDataLength), "cookie");
  ExpectRefused(WithV2(32, 0xffffffff), "cookie");
}

TEST(HeaderTest, RefusesVersion3WithoutItsLayout) {
  for (std::uint32_t format = 0; format < 6; ++format) ExpectRefused(WithV3(28, format), "version 3");
}

TEST(HeaderTest, RefusesVersion3WithoutItsExtension) {
  ExpectRefused(WithV3(36, 0), "version 3");
  for (int bit = 0; bit < 32; ++bit) ExpectRefused(WithV3(36, 0x33534d56U ^ std::uint32_t{1} << bit), "version 3");
}

// One flipped bit in the version makes version 3 into libvirt's sparse image, which has no checksums.
TEST(HeaderTest, RefusesVersion3sFieldsAndLayoutUnderVersion2) {
  ExpectRefused(WithV3(16, 2), "it says version 2, but has version 3's fields");
}

TEST(HeaderTest, RejectsUnknownIncompatibleBit) {
  for (int bit = 0; bit < 32; ++bit) {
    ExpectRefused(WithV3(40, std::uint32_t{1} << bit), "features that this vmsave does not know");
  }
}

TEST(HeaderTest, IgnoresUnknownCompatibleBit) {
  EXPECT_EQ(Decode(WithV3(44, 0x80000001)).extension->features_compatible, 0x80000001U);
}

TEST(HeaderTest, RefusesReservedWordsThatAreNotZero) {
  for (const std::size_t at : {80U, 84U, 88U}) ExpectRefused(WithV3(at, 0x01000000), "reserved");
}

// libvirt does not check them, and neither does version 2.
TEST(HeaderTest, IgnoresUnusedWordsOfVersion2) {
  for (std::size_t at = 36; at < kSaveHeaderBytes; at += 4) EXPECT_FALSE(Decode(WithV2(at, 0x33534d56)).extension);
}

TEST(HeaderTest, FindsEveryFlippedBitBeforeTheStreamByHash) {
  Bytes bytes = Join({Hex(golden::kHeaderV3), golden::Data()});
  bytes.resize(kSaveHeaderBytes + 64);  // the rest is padding, and slow
  const std::uint64_t hash = HashBeforeStream(bytes);
  for (std::size_t bit = kSaveMagicBytes * 8; bit < bytes.size() * 8; ++bit) {
    if (bit / 8 >= 72 && bit / 8 < 80) continue;  // the field itself
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_NE(HashBeforeStream(bytes), hash) << bit;
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

TEST(HeaderTest, HashIsThatOfTheCompleteImageWithoutTheHash) {
  Bytes bytes = Join({Hex(golden::kHeaderV3), golden::Data()});
  EXPECT_EQ(HashBeforeStream(bytes), golden::kHeaderHash);
  Place(bytes, 12, AsBytes("Part"));
  Place(bytes, 72, Bytes(8));
  EXPECT_EQ(HashBeforeStream(bytes), golden::kHeaderHash);
}

TEST(HeaderTest, TellsWhetherTheBytesAreThoseOfItsHash) {
  Bytes bytes = Join({Hex(golden::kHeaderV3), golden::Data()});
  const SaveHeader header = Decode(bytes);
  EXPECT_TRUE(FitsHeaderHash(bytes, header));
  bytes.back() = std::byte{1};
  EXPECT_FALSE(FitsHeaderHash(bytes, header));
  EXPECT_TRUE(FitsHeaderHash(bytes, Decode(Hex(golden::kHeaderV2)))) << "it has no hash";
}

TEST(HeaderTest, RandomBytesBehindTheMagicNeverCrash) {
  Bytes bytes = Hex(golden::kHeaderV3);
  std::uint32_t state = 1;
  for (int round = 0; round < 20000; ++round) {
    for (std::size_t at = kSaveMagicBytes; at < bytes.size(); ++at) {
      state = state * 1664525 + 1013904223;
      bytes[at] = static_cast<std::byte>(state >> 24 < 128 ? 0 : state >> 16);
    }
    bytes[16] = static_cast<std::byte>(round % 5);
    try {
      Decode(bytes);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kDamaged);
    }
  }
}

TEST(DescriptionTest, IsFollowedByNulAndPadding) {
  EXPECT_EQ(EncodeDescription(golden::kDescription), golden::Data());
  EXPECT_EQ(EncodeDescription("").size(), 65537U);
}

TEST(DescriptionTest, EndsAtItsNul) {
  EXPECT_EQ(DecodeDescription(golden::Data(), "vm1.sav"), golden::kDescription);
  EXPECT_EQ(DecodeDescription(Hex("616200636400"), "vm1.sav"), "ab");
  EXPECT_EQ(DecodeDescription(Hex("00"), "vm1.sav"), "");
}

TEST(DescriptionTest, RefusesOneWithoutAnEnd) {
  const Bytes text = ToBytes(golden::kDescription);
  for (std::size_t length = 0; length <= text.size(); ++length) {
    ExpectDamaged([&] { DecodeDescription(std::span(text).first(length), "vm1.sav"); }, "vm1.sav");
  }
}

// Header, description and cookie, with little padding.
Bytes BeforeStream(Bytes header, std::string_view data) {
  PutLittleEndian<std::uint32_t>(std::span(header).subspan(20), static_cast<std::uint32_t>(data.size()));
  return Join({header, ToBytes(data)});
}

std::string DataOf(const Bytes& before_stream) {
  return AsText(std::span(before_stream).subspan(kSaveHeaderBytes));
}

using namespace std::string_literals;

TEST(NewDescriptionTest, TakesTheRoomOfTheOldOneAndItsPadding) {
  const Bytes before = BeforeStream(Hex(golden::kHeaderV2), "<old/>\0\0\0\0"s);
  EXPECT_EQ(DescriptionRoom(before, Decode(before)), 9U);
  for (const std::string& text : {"<d/>"s, "<longer/>"s}) {
    const Bytes after = WithDescription(before, Decode(before), text);
    EXPECT_EQ(DataOf(after), text + std::string(10 - text.size(), '\0'));
    EXPECT_TRUE(
        std::ranges::equal(std::span(after).first(kSaveHeaderBytes), std::span(before).first(kSaveHeaderBytes)));
  }
}

TEST(NewDescriptionTest, MovesTheCookie) {
  for (const bool swapped : {false, true}) {
    Bytes before = BeforeStream(WithV2(32, 7), "<old/>\0cookie\0\0\0\0"s);
    if (swapped) before = Swapped(before);
    EXPECT_EQ(DescriptionRoom(before, Decode(before)), 9U);
    const Bytes after = WithDescription(before, Decode(before), "<longer/>");
    EXPECT_EQ(DataOf(after), "<longer/>\0cookie\0"s);
    EXPECT_EQ(Decode(after).cookie_offset, 10U);
    EXPECT_EQ(Decode(after).byte_order, Decode(before).byte_order);
    EXPECT_EQ(DataOf(WithDescription(after, Decode(after), "<old/>")), DataOf(before));
  }
}

TEST(NewDescriptionTest, KeepsACookieThatNothingEnds) {
  const Bytes before = BeforeStream(WithV2(32, 8), "<old/>\0\0cookie"s);
  EXPECT_EQ(DescriptionRoom(before, Decode(before)), 7U);
  EXPECT_EQ(DataOf(WithDescription(before, Decode(before), "<older>")), "<older>\0cookie"s);
}

TEST(NewDescriptionTest, HasNoRoomBesideACookieThatTakesItAll) {
  const Bytes before = BeforeStream(WithV2(32, 1), "\0cookie"s);
  EXPECT_EQ(DescriptionRoom(before, Decode(before)), 0U);
}

TEST(NewDescriptionTest, HasVersion3sChecksum) {
  const Bytes before = Join({Hex(golden::kHeaderV3), golden::Data()});
  const Bytes after = WithDescription(before, Decode(before), "<domain>other</domain>");
  EXPECT_EQ(Decode(after).extension->header_hash, HashBeforeStream(after));
  EXPECT_NE(Decode(after).extension->header_hash, golden::kHeaderHash);
  EXPECT_EQ(WithDescription(after, Decode(after), golden::kDescription), before);
}

TEST(NewDescriptionTest, KeepsWordsThatItsVersionDoesNotUse) {
  Bytes header = WithV2(16, 1);
  for (std::size_t at = 28; at < kSaveHeaderBytes; ++at) header[at] = std::byte{0x5a};
  const Bytes before = BeforeStream(header, "<old/>\0\0"s);
  const Bytes after = WithDescription(before, Decode(before), "<new/>");
  EXPECT_TRUE(std::ranges::equal(std::span(after).first(kSaveHeaderBytes), std::span(before).first(kSaveHeaderBytes)));
}

}  // namespace
}  // namespace vmsave
