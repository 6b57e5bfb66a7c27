// Images as libvirt wrote them until 2009, and as it writes them on a big-endian host: a save's image with another
// header.
#include <algorithm>
#include <memory>
#include <ostream>
#include <span>

#include "format/bytes.h"
#include "format/save_header.h"
#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/static_vmrestore.h"

namespace vmsave {
namespace {

constexpr std::size_t kVersionAt = 16;
constexpr std::size_t kDataLengthAt = 20;
constexpr std::size_t kFieldsEnd = 36;

std::uint32_t Field(const std::string& image, std::size_t at) {
  return GetLittleEndian<std::uint32_t>(AsBytes(std::string_view(image).substr(at, 4)));
}

void SetField(std::string& image, std::size_t at, std::uint32_t value) {
  PutLittleEndian(std::as_writable_bytes(std::span(image)).subspan(at), value);
}

// Version 1: the stream follows the description's NUL, without padding.
std::string AsVersion1(const std::string& version2) {
  const std::size_t text_end = version2.find('\0', kSaveHeaderBytes) + 1;
  std::string image = version2.substr(0, text_end);
  SetField(image, kVersionAt, 1);
  SetField(image, kDataLengthAt, static_cast<std::uint32_t>(text_end - kSaveHeaderBytes));
  return image + version2.substr(kSaveHeaderBytes + Field(version2, kDataLengthAt));
}

std::string FromBigEndianHost(std::string image) {
  for (auto at = image.begin() + kVersionAt; at != image.begin() + kFieldsEnd; at += 4) std::reverse(at, at + 4);
  return image;
}

struct OldImage {
  std::string name;
  std::string (*make)(const std::string& version2);
  unsigned version;
  std::string byte_order;
};

std::ostream& operator<<(std::ostream& out, const OldImage& image) {
  return out << image.name;
}

const OldImage kOldImages[] = {
    {"Version1", AsVersion1, 1, "little-endian"},
    {"Version1FromBigEndianHost", [](const std::string& v2) { return FromBigEndianHost(AsVersion1(v2)); }, 1,
     "big-endian"},
    {"Version2FromBigEndianHost", [](const std::string& v2) { return FromBigEndianHost(v2); }, 2, "big-endian"}};

class OldImageTest : public EndToEndTest, public testing::WithParamInterface<OldImage> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    saved_ = std::make_unique<Guest>(files_, "saved", shape_);
    saved_->Boot();
    ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "2"})));
    WaitUntil("the end of the saved QEMU", [&] { return saved_->Processes().empty(); });
    WriteWholeFile(ImagePath(), GetParam().make(ReadWholeFile(ImagePath())));
  }

  GuestShape shape_{.qemu = WhichQemu::kOld};
  std::unique_ptr<Guest> saved_;
};

INSTANTIATE_TEST_SUITE_P(Each, OldImageTest, testing::ValuesIn(kOldImages), testing::PrintToStringParamName());

TEST_P(OldImageTest, GuestGoesOn) {
  Guest restored(files_, "restored", shape_);
  restored.PrintTo(*saved_);

  ASSERT_TRUE(Succeeded(Restore(restored, {"--via", "stream"})));

  EXPECT_TRUE(GoesOn(restored));
}

TEST_P(OldImageTest, GuestGoesOnByTheStaticProgram) {
  if (kStaticVmrestore == nullptr) GTEST_SKIP() << kNoStaticPrograms;
  Guest restored(files_, "restored", shape_);
  restored.PrintTo(*saved_);
  std::vector<std::string> command = VmrestoreCommand(restored, {"--detach", ImagePath()});
  command[0] = kStaticVmrestore;

  ASSERT_TRUE(Succeeded(RunToEnd(command)));

  EXPECT_TRUE(GoesOn(restored));
}

TEST_P(OldImageTest, InfoTellsItsVersionAndByteOrder) {
  const nlohmann::json info = InfoOf(ImagePath());
  const std::string text = RunToEnd({VMIMAGE_PROGRAM, "info", ImagePath()}).out;

  EXPECT_EQ(info.at("version"), GetParam().version);
  EXPECT_EQ(info.at("header_byte_order"), GetParam().byte_order);
  EXPECT_EQ(info.at("needs").at("qemu").at("since"), "7.2");
  EXPECT_EQ(info.at("needs").at("virsh").at("possible"), true);
  EXPECT_NE(text.find("version:     " + std::to_string(GetParam().version)), std::string::npos) << text;
  const bool told = text.find("header byte order: big-endian\n") != std::string::npos;
  EXPECT_EQ(told, GetParam().byte_order == "big-endian") << text;
}

}  // namespace
}  // namespace vmsave
