#include "format/working_set.h"

#include <gtest/gtest.h>

#include "format/page_hash.h"
#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

Bytes Example() {
  return EncodeWorkingSet({0x1122334455667788, {{0, 2, 5}, {3, 1, 0}}});
}

Bytes Resealed(Bytes bytes) {
  const std::span<std::byte> all(bytes);
  PutLittleEndian(all.last(8), Xxh3(all.first(all.size() - 8)));
  return bytes;
}

TEST(WorkingSetTest, IsWrittenAsFormatMdSays) {
  const Bytes bytes = Example();
  EXPECT_EQ(ToHex(std::span(bytes).first(bytes.size() - 8)),
            "564d534156455753"
            "01000000"
            "02000000"
            "8877665544332211"
            "00000000020000000500000000000000"
            "03000000010000000000000000000000");
}

TEST(WorkingSetTest, ComesBackAsItWas) {
  const WorkingSet set = DecodeWorkingSet(Example(), "f");
  EXPECT_EQ(set.image, 0x1122334455667788U);
  EXPECT_EQ(set.runs, (std::vector<ChunkRun>{{0, 2, 5}, {3, 1, 0}}));
}

TEST(WorkingSetTest, AnyFlippedBitIsFound) {
  const Bytes sound = Example();
  for (std::size_t bit = 0; bit < sound.size() * 8; ++bit) {
    Bytes bytes = sound;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_THROW(DecodeWorkingSet(bytes, "f"), Error) << bit;
  }
}

TEST(WorkingSetTest, AnyOtherLengthIsRefused) {
  const Bytes sound = Example();
  for (std::size_t length = 0; length < sound.size(); ++length) {
    EXPECT_THROW(DecodeWorkingSet(std::span(sound).first(length), "f"), Error) << length;
  }
}

TEST(WorkingSetTest, RefusesMoreRunsThanThereAre) {
  Bytes bytes = Example();
  Place(bytes, 12, Hex("ffffffff"));
  ExpectDamaged([&] { DecodeWorkingSet(Resealed(bytes), "vm.sav.ws"); }, "another length");
}

TEST(WorkingSetTest, RefusesOtherVersions) {
  Bytes bytes = Example();
  Place(bytes, 8, Hex("02000000"));
  ExpectDamaged([&] { DecodeWorkingSet(Resealed(bytes), "vm.sav.ws"); },
                "vm.sav.ws: it is a working set of an unknown");
}

}  // namespace
}  // namespace vmsave
