#include "convert/description_edit.h"

#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <filesystem>

#include "reader/verify.h"
#include "tests/convert/edited_images.h"
#include "tests/writer/file_size_limit.h"

namespace vmsave {
namespace {

constexpr const char* kSource = "new.xml";

struct stat StatusOf(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status;
}

std::string Refusal(const std::function<void()>& step, ErrorKind kind) {
  try {
    step();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "(nothing was refused)";
}

class DescriptionEditTest : public testing::TestWithParam<Kind> {
 protected:
  DescriptionEditTest() { WriteKind(path_, SmallestGuest(), GetParam()); }

  bool Replace(std::string_view description) const { return DescriptionEdit(path_).Replace(description, kSource); }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
};

INSTANTIATE_TEST_SUITE_P(Kinds, DescriptionEditTest, testing::ValuesIn(kAllKinds),
                         [](const auto& shown) { return KindName(shown.param); });

TEST_P(DescriptionEditTest, ReplacesTheDescriptionAndNothingElse) {
  const Bytes before = ReadWholeFile(path_);
  const std::string original = Image(path_).description();
  const std::size_t stream_start = Image(path_).stream_start().value();
  for (const std::string& text : {DescriptionOf(3000, 'a'), DescriptionOf(60000, 'b'), std::string("<domain/>")}) {
    EXPECT_TRUE(Replace(text));
    const Image image(path_);
    EXPECT_EQ(image.description(), text);
    EXPECT_EQ(image.edit_trace(), EditTrace::kNone);
    VerifyMetadata(image);
    const Bytes after = ReadWholeFile(path_);
    ASSERT_EQ(after.size(), before.size());
    EXPECT_TRUE(std::equal(after.begin() + static_cast<std::ptrdiff_t>(stream_start), after.end(),
                           before.begin() + static_cast<std::ptrdiff_t>(stream_start)));
  }
  EXPECT_TRUE(Replace(original));
  EXPECT_TRUE(ReadWholeFile(path_) == before);
}

TEST_P(DescriptionEditTest, WritesNothingWhereNothingChanges) {
  const struct stat before = StatusOf(path_);
  EXPECT_FALSE(Replace(Image(path_).description()));
  const struct stat after = StatusOf(path_);
  EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  EXPECT_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
}

TEST_P(DescriptionEditTest, KeepsTheFile) {
  const std::string link = directory_.Path("link.sav");
  std::filesystem::create_hard_link(path_, link);
  ASSERT_EQ(::chmod(path_.c_str(), 0640), 0);
  const struct stat before = StatusOf(path_);
  Replace("<domain/>");
  EXPECT_EQ(StatusOf(path_).st_ino, before.st_ino);
  EXPECT_EQ(StatusOf(path_).st_mode, before.st_mode);
  EXPECT_EQ(Image(link).description(), "<domain/>");
}

TEST_P(DescriptionEditTest, TakesUpToTheLastByteOfItsRoom) {
  const Bytes before = ReadWholeFile(path_);
  const std::size_t room = Image(path_).header()->data_length - 1;
  const std::string why = Refusal([&] { Replace(std::string(room + 1, 'x')); }, ErrorKind::kUsage);
  EXPECT_NE(why.find("new.xml: it has " + std::to_string(room + 1) + " bytes"), std::string::npos) << why;
  EXPECT_NE(why.find("has room for " + std::to_string(room)), std::string::npos) << why;
  EXPECT_TRUE(ReadWholeFile(path_) == before);
  EXPECT_TRUE(Replace(std::string(room, 'x')));
  EXPECT_EQ(Image(path_).description().size(), room);
}

TEST_P(DescriptionEditTest, LeavesTheImageAsItWasWhereTheDiskIsFull) {
  const Bytes before = ReadWholeFile(path_);
  {
    const FileSizeLimit limit(before.size() + 8192);
    Refusal([this] { Replace("<domain/>"); }, ErrorKind::kFailed);
  }
  EXPECT_TRUE(ReadWholeFile(path_) == before);
}

TEST_P(DescriptionEditTest, IsRefusedWhileAnotherIsUnderWay) {
  const Bytes before = ReadWholeFile(path_);
  const DescriptionEdit other(path_);
  const std::string why = Refusal([this] { Replace("<domain/>"); }, ErrorKind::kFailed);
  EXPECT_NE(why.find("another program is changing it"), std::string::npos) << why;
  EXPECT_TRUE(ReadWholeFile(path_) == before);
}

TEST_P(DescriptionEditTest, RefusesATextWithANul) {
  Refusal([this] { Replace(std::string_view("<domain/>\0<more/>", 17)); }, ErrorKind::kUsage);
}

class OddImageEditTest : public testing::Test {
 protected:
  void ExpectNoEdit(ErrorKind kind, std::string_view words) const {
    const std::string why = Refusal([this] { DescriptionEdit edit(path_); }, kind);
    EXPECT_NE(why.find(words), std::string::npos) << why;
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
};

TEST_F(OddImageEditTest, KeepsLibvirtsCookie) {
  WriteKind(path_, SmallestGuest(), Kind::kVersion2);
  AddCookie(path_, "<cookie>it</cookie>");
  for (const std::string& text : {DescriptionOf(3000, 'a'), std::string("<domain/>")}) {
    DescriptionEdit(path_).Replace(text, kSource);
    const Bytes file = ReadWholeFile(path_);
    const Image image(path_);
    EXPECT_EQ(image.description(), text);
    EXPECT_EQ(image.header()->cookie_offset, text.size() + 1);
    const auto cookie = std::span(file).subspan(kSaveHeaderBytes + image.header()->cookie_offset, 20);
    EXPECT_EQ(AsText(cookie), std::string_view("<cookie>it</cookie>\0", 20));
    VerifyMetadata(image);
  }
}

TEST_F(OddImageEditTest, BareStreamsHaveNoDescription) {
  for (const Copy copy : {Copy::kBareStream, Copy::kBareMappedRam}) {
    WriteCopy(path_, SmallestGuest(), copy);
    ExpectNoEdit(ErrorKind::kDamaged, "no description");
  }
}

// A checksum that is made anew would make what is damaged look right.
TEST_F(OddImageEditTest, ADamagedDescriptionIsNotSealed) {
  WriteKind(path_, SmallestGuest(), Kind::kVersion3);
  const FlippedBit damage(path_, FileOffset{100}, 1);
  ExpectNoEdit(ErrorKind::kDamaged, "wrong checksum");
}

TEST_F(OddImageEditTest, APartialImageIsRefused) {
  WriteKind(path_, SmallestGuest(), Kind::kVersion3);
  Overwrite(path_, FileOffset{0}, ToBytes("LibvirtQemudPart"));
  ExpectNoEdit(ErrorKind::kDamaged, "incomplete");
}

TEST_F(OddImageEditTest, NeedsAFile) {
  ExpectNoEdit(ErrorKind::kFailed, path_);
  path_ = directory_.path().string();
  ExpectNoEdit(ErrorKind::kFailed, path_);
}

}  // namespace
}  // namespace vmsave
