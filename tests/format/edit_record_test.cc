#include "format/edit_record.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/format/golden.h"

namespace vmsave {
namespace {

constexpr ByteCount kLength{golden::kStreamEnd};

std::span<const std::byte, kSaveHeaderBytes> HeaderOf(const Bytes& bytes) {
  return std::span(bytes).first<kSaveHeaderBytes>();
}

Bytes HeaderWithNote(ByteCount length) {
  Bytes header = Hex(golden::kHeaderV2);
  Place(header, kEditNoteOffset.value(), EncodeEditNote(length));
  return header;
}

TEST(EditNoteTest, TellsTheLengthOfTheImage) {
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{4097}, ~std::uint64_t{0}}) {
    EXPECT_EQ(DecodeEditNote(HeaderOf(HeaderWithNote(ByteCount{length}))), ByteCount{length});
  }
}

TEST(EditNoteTest, LeavesTheFieldsOfTheHeaderAlone) {
  const Bytes header = HeaderWithNote(kLength);
  EXPECT_EQ(ToHex(std::span(header).first(36)), golden::kHeaderV2.substr(0, 72));
  EXPECT_FALSE(DecodeSaveHeader(HeaderOf(header), "vm.sav").extension);
}

TEST(EditNoteTest, IsNotFoundInHeadersWithoutOne) {
  EXPECT_FALSE(DecodeEditNote(HeaderOf(Hex(golden::kHeaderV2))));
  EXPECT_FALSE(DecodeEditNote(HeaderOf(Hex(golden::kHeaderV3))));
}

TEST(EditNoteTest, IsNoneWithAnyBitFlipped) {
  Bytes header = HeaderWithNote(kLength);
  for (std::size_t bit = kEditNoteOffset.value() * 8; bit < kSaveHeaderBytes * 8; ++bit) {
    header[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(DecodeEditNote(HeaderOf(header))) << bit;
    header[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

class EditRecordTest : public testing::Test {
 protected:
  Bytes before_stream_ = Join({Hex(golden::kHeaderV3), ToBytes("<domain/>"), Bytes(10)});
  Bytes record_ = EncodeEditRecord(before_stream_, kLength);
};

TEST_F(EditRecordTest, HoldsTheBytesBeforeTheStream) {
  EXPECT_TRUE(HasEditMagic(record_));
  EXPECT_EQ(record_.size(), EditRecordBytes(before_stream_.size()));
  const auto decoded = DecodeEditRecord(record_, kLength);
  ASSERT_TRUE(decoded);
  EXPECT_TRUE(std::ranges::equal(*decoded, before_stream_));
}

TEST_F(EditRecordTest, IsNoneUntilAllOfItIsThere) {
  for (std::size_t length = 0; length < record_.size(); ++length) {
    EXPECT_FALSE(DecodeEditRecord(std::span(record_).first(length), kLength)) << length;
    Bytes torn = record_;  // a file can grow ahead of what is written to it
    std::fill(torn.begin() + static_cast<std::ptrdiff_t>(length), torn.end(), std::byte{0xee});
    EXPECT_FALSE(DecodeEditRecord(torn, kLength)) << length;
  }
}

TEST_F(EditRecordTest, IsNoneWithAnyBitFlipped) {
  for (std::size_t bit = 0; bit < record_.size() * 8; ++bit) {
    record_[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(DecodeEditRecord(record_, kLength)) << bit;
    record_[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}

TEST_F(EditRecordTest, IsNoneOfAnImageOfAnotherLength) {
  EXPECT_FALSE(DecodeEditRecord(record_, ByteCount{kLength.value() + 1}));
}

TEST_F(EditRecordTest, StandsBehindTheLastBlockOfTheImage) {
  EXPECT_EQ(EditRecordOffset(ByteCount{8192}), FileOffset{8192});
  EXPECT_EQ(EditRecordOffset(ByteCount{8193}), FileOffset{12288});
  EXPECT_THROW(EditRecordOffset(ByteCount{~std::uint64_t{0}}), Error);
}

TEST(ImageLengthTest, OfVersion3FollowsFromItsHeader) {
  HeaderExtension extension;
  extension.stream_end = FileOffset{5000};
  EXPECT_EQ(ImageLength(extension), ByteCount{5000});
  extension.integrity_offset = FileOffset{8192};
  extension.integrity_length = ByteCount{100};
  EXPECT_EQ(ImageLength(extension), ByteCount{8292});
  extension.integrity_length = ByteCount{~std::uint64_t{0}};
  EXPECT_THROW(ImageLength(extension), Error);
}

// Does the steps to a file in memory.
void Do(const std::vector<EditStep>& steps, Bytes& file) {
  for (const EditStep& step : steps) {
    if (step.kind == EditStep::Kind::kTruncate) {
      file.resize(step.at.value());
    } else {
      Place(file, step.at.value(), step.bytes);
    }
  }
}

class EditPlanTest : public testing::TestWithParam<std::uint32_t> {
 protected:
  // Of an image with 5000 bytes of stream, where the description is `text`.
  Bytes BeforeStream(std::string_view text) const {
    Bytes header = Hex(GetParam() == 3 ? golden::kHeaderV3 : golden::kHeaderV2);
    header[40] = GetParam() == 3 ? std::byte{0} : std::byte{0x77};  // words that are not in use stay
    return Join({header, ToBytes(text), Bytes(1)});
  }
  Bytes File(std::string_view text) const { return Join({BeforeStream(text), Bytes(5000, std::byte{0x33})}); }
  EditedImage Edited(const Bytes& before_stream) const {
    return {before_stream, ByteCount{File("<new/>").size()}, GetParam() != 3};
  }
};

INSTANTIATE_TEST_SUITE_P(Versions, EditPlanTest, testing::Values(2, 3));

TEST_P(EditPlanTest, EndsWithTheNewBytesAndNothingElse) {
  const Bytes after = BeforeStream("<new/>");
  Bytes file = File("<old/>");
  Do(PlanEditRecord(Edited(after)), file);
  EXPECT_NE(file, File("<new/>"));
  Do(PlanEditCompletion(Edited(after)), file);
  EXPECT_EQ(file, File("<new/>"));
}

TEST_P(EditPlanTest, IsWithdrawnWithoutATrace) {
  const Bytes before = BeforeStream("<old/>");
  Bytes file = File("<old/>");
  Do(PlanEditRecord(Edited(BeforeStream("<new/>"))), file);
  Do(PlanEditWithdrawal(Edited(before)), file);
  EXPECT_EQ(file, File("<old/>"));
}

TEST_P(EditPlanTest, MayBeCompletedAgainFromTheStart) {
  const Bytes after = BeforeStream("<new/>");
  const std::vector<EditStep> completion = PlanEditCompletion(Edited(after));
  for (std::size_t done = 0; done <= completion.size(); ++done) {
    Bytes file = File("<old/>");
    Do(PlanEditRecord(Edited(after)), file);
    Do({completion.begin(), completion.begin() + static_cast<std::ptrdiff_t>(done)}, file);
    Do(completion, file);
    EXPECT_EQ(file, File("<new/>"));
  }
}

}  // namespace
}  // namespace vmsave
