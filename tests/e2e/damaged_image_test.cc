// Images that are not what they were: refused with status 3 before QEMU is given a byte, and the damage is named.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <ostream>

#include "reader/image.h"
#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

// One byte of the file changed, or the file cut short, and what the programs then say.
struct Damage {
  std::string name;
  std::string version;
  std::function<void(const Image&, std::fstream&)> inflict;
  std::string message;
};

std::ostream& operator<<(std::ostream& out, const Damage& damage) {
  return out << damage.name;
}

void FlipByte(std::fstream& file, std::uint64_t at) {
  file.seekg(static_cast<std::streamoff>(at));
  const auto byte = static_cast<char>(file.get() ^ 0x40);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

std::function<void(const Image&, std::fstream&)> Flip(const std::function<FileOffset(const Image&)>& where) {
  return [where](const Image& image, std::fstream& file) { FlipByte(file, where(image).value()); };
}

std::function<void(const Image&, std::fstream&)> Write(std::uint64_t at, const std::string& bytes) {
  return [at, bytes](const Image&, std::fstream& file) {
    file.seekp(static_cast<std::streamoff>(at));
    file << bytes;
  };
}

std::function<void(const Image&, std::fstream&)> CutTo(const std::function<std::uint64_t(const Image&)>& length) {
  return [length](const Image& image, std::fstream& file) {
    file.flush();
    std::filesystem::resize_file(image.path(), length(image));
  };
}

FileOffset BitmapOffset(const Image& image) {
  return image.contents().blocks.front().mapped_ram->bitmap_offset;
}

FileOffset FirstPresentPage(const Image& image) {
  const StreamBlock& block = image.contents().blocks.front();
  std::uint64_t page = 0;
  while (!block.present.Test(page)) ++page;
  return block.mapped_ram->pages_offset + ByteCount{page * kPageBytes};
}

FileOffset AfterPages(const Image& image) {
  const StreamBlock& block = image.contents().blocks.back();
  return block.mapped_ram->pages_offset + block.length + ByteCount{20};
}

std::vector<Damage> InMetadata() {
  const auto length = [](std::uint64_t bytes) { return CutTo([bytes](const Image&) { return bytes; }); };
  const auto before_end = [](std::uint64_t bytes) {
    return CutTo([bytes](const Image& image) { return image.file_length().value() - bytes; });
  };
  const auto at = [](std::uint64_t offset) { return Flip([offset](const Image&) { return FileOffset{offset}; }); };
  return {
      {"Partial", "3", Write(0, "LibvirtQemudPart"), "incomplete"},
      {"PartialVersion2", "2", Write(0, "LibvirtQemudPart"), "incomplete"},
      {"SomethingElse", "3", Write(0, "not an image at all"), "neither a save image nor a QEMU stream"},
      {"Empty", "2", length(0), "neither"},
      {"Version4", "3", Write(16, std::string("\x04\0\0\0", 4)), "version 4"},
      {"UnknownIncompatibleFeature", "3", Write(40, std::string("\x02\0\0\0", 4)), "feature"},
      {"Compressed", "2", Write(28, std::string("\x05\0\0\0", 4)), "zstd"},
      {"HeaderByte", "3", at(44), "header"},
      {"HeaderField", "3", at(24), "was_running"},
      {"DescriptionByte", "3", at(96), "description"},
      {"PaddingByte", "3", at(10000), "description"},
      {"BitmapByte", "3", Flip(BitmapOffset), "bitmap"},
      {"DeviceStateByte", "3", Flip(AfterPages), "device state"},
      {"TableByte", "3",
       Flip([](const Image& image) { return image.header()->extension->integrity_offset + ByteCount{100}; }),
       "integrity table"},
      {"CutInHeader", "3", length(60), "header"},
      {"CutInDescription", "2", length(3000), "description"},
      {"CutInBlockList", "3", CutTo([](const Image& image) { return image.stream_start().value() + 20; }), "truncated"},
      {"CutInPages", "3", CutTo([](const Image& image) { return FirstPresentPage(image).value() + 5000; }),
       "truncated"},
      {"CutInDeviceState", "3", CutTo([](const Image& image) { return image.stream_end().value() - 3; }), "truncated"},
      {"CutInTable", "3", before_end(1), "truncated"},
      {"CutInPagesVersion2", "2", CutTo([](const Image& image) { return image.file_length().value() / 2; }),
       "truncated"},
      {"CutByOneByteVersion2", "2", before_end(1), "truncated"}};
}

class DamagedImageTest : public EndToEndTest, public testing::WithParamInterface<Damage> {
 protected:
  void InflictDamage() const {
    const Damage& damage = GetParam();
    ASSERT_TRUE(Succeeded(
        RunToEnd({VMSAVE_PROGRAM, "--synthetic", "8M,zero=40", "--image-version", damage.version, ImagePath()})));
    const Image image(ImagePath());
    std::fstream file(ImagePath(), std::ios::in | std::ios::out | std::ios::binary);
    damage.inflict(image, file);
    file.flush();
    ASSERT_TRUE(file.good());
  }
};

TEST_P(DamagedImageTest, IsNotRestored) {
  InflictDamage();
  GuestShape shape;
  shape.machine = "pc";
  shape.memory_kib = 8 << 10;
  const Guest guest(files_, "restored", shape);

  const Outcome restore = Restore(guest);

  EXPECT_TRUE(Refused(restore, 3, GetParam().message));
  EXPECT_NE(restore.err.find(ImagePath()), std::string::npos) << restore.err;
  EXPECT_FALSE(std::filesystem::exists(guest.ram_path())) << "QEMU was started";
}

TEST_P(DamagedImageTest, IsFoundByVerify) {
  InflictDamage();

  const Outcome verify = RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()});

  EXPECT_EQ(verify.status, 3) << verify.out << verify.err;
  EXPECT_NE((verify.out + verify.err).find(GetParam().message), std::string::npos) << verify.out << verify.err;
}

std::string NameOf(const testing::TestParamInfo<Damage>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Metadata, DamagedImageTest, testing::ValuesIn(InMetadata()), NameOf);

class DamagedPageTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    Guest saved(files_, "saved", shape_);
    saved.Boot();
    ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "3"})));
    DamageGuestRam();
  }

  void DamageGuestRam() const {
    const Image image(ImagePath());
    for (const StreamBlock& block : image.contents().blocks) {
      if (block.name != "pc.ram") continue;
      std::uint64_t page = 2000;
      while (!block.present.Test(page)) ++page;
      std::fstream file(ImagePath(), std::ios::in | std::ios::out | std::ios::binary);
      FlipByte(file, block.mapped_ram->pages_offset.value() + page * kPageBytes + 77);
    }
  }

  void ExpectNoGuest(const std::string& way) const {
    GuestShape shape = shape_;
    if (way != "memory") shape.ram = Ram::kPrivate;
    const Guest restored(files_, "restored-" + way, shape);
    EXPECT_TRUE(Refused(Restore(restored, {"--via", way}), 3, "pc.ram"));
    EXPECT_TRUE(restored.Processes().empty());
    EXPECT_EQ(restored.console().LastTick(), 0U);
  }

  GuestShape shape_;
};

INSTANTIATE_TEST_SUITE_P(Both, DamagedPageTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(DamagedPageTest, IsFoundOnItsWayIntoMemory) {
  ExpectNoGuest("memory");
}

TEST_P(DamagedPageTest, IsFoundOnItsWayIntoTheStream) {
  ExpectNoGuest("stream");
}

TEST_P(DamagedPageTest, IsFoundOnItsWayIntoAChannel) {
  ExpectNoGuest("multifd");
}

TEST_P(DamagedPageTest, IsFoundByFullVerificationBeforeQemuIsStarted) {
  const Guest restored(files_, "restored", shape_);

  EXPECT_TRUE(Refused(Restore(restored, {"--verify", "full"}), 3, "pc.ram"));

  EXPECT_FALSE(std::filesystem::exists(restored.ram_path())) << "QEMU was started";
}

TEST_P(DamagedPageTest, IsNamedByVerify) {
  const Outcome verify = RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()});

  EXPECT_EQ(verify.status, 3);
  EXPECT_NE(verify.out.find("pc.ram"), std::string::npos) << verify.out;
  EXPECT_NE(verify.out.find("1 place"), std::string::npos) << verify.out;
}

TEST_P(DamagedPageTest, IsNotLookedAtWhereNoVerificationIsWanted) {
  const Guest restored(files_, "restored", shape_);

  ASSERT_TRUE(Succeeded(Restore(restored, {"--verify", "off", "--via", "memory"})));

  WaitUntil("the guest's own check", [&] { return restored.console().Text().find("corrupt") != std::string::npos; });
}

}  // namespace
}  // namespace vmsave
