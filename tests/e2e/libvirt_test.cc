// Images go both ways between libvirt and the programs, and so does the guest in them.
#include "tests/e2e/libvirt.h"

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

using enum WhichLibvirt;

class LibvirtTest : public EndToEndTest {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    if (const std::optional<std::string> reason = WhyNoLibvirt()) GTEST_SKIP() << *reason;
  }

  // A guest whose QEMU is as old as its libvirt.
  Guest MakeGuest(WhichLibvirt libvirt, Ram ram = Ram::kPrivate) const {
    GuestShape shape;
    shape.qemu = libvirt == kOld ? WhichQemu::kOld : WhichQemu::kNew;
    shape.ram = ram;
    shape.options = "fill=10 seed=7 tick=20 passes=4";  // its pages do not compress, which takes long
    return Guest(files_, kGuestName, shape);
  }

  // A save that libvirt can restore, of the domain that stands for `guest`.
  Outcome SaveDomain(const Libvirt& libvirt, const Guest& guest, const std::vector<std::string>& options = {}) const {
    const std::string description = files_.Path("description.xml");
    WriteWholeFile(description, libvirt.MigratableXml());
    std::vector<std::string> arguments{"--description", description};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return Save(guest, arguments);
  }
};

// `virsh save`, then vmrestore.
struct LibvirtImage {
  std::string name;
  WhichLibvirt libvirt;
  std::vector<std::string> settings;      // lines of qemu.conf
  std::vector<std::string> save_options;  // of virsh
  std::string format;
};

std::ostream& operator<<(std::ostream& out, const LibvirtImage& image) {
  return out << image.name;
}

class LibvirtImageTest : public LibvirtTest, public testing::WithParamInterface<LibvirtImage> {};

TEST_P(LibvirtImageTest, IsReadAndRestored) {
  const LibvirtImage& image = GetParam();
  const Guest guest = MakeGuest(image.libvirt);
  const Libvirt libvirt(image.libvirt, image.settings);
  libvirt.Boot(guest);

  std::vector<std::string> save{"save", kGuestName, ImagePath()};
  save.insert(save.end(), image.save_options.begin(), image.save_options.end());
  ASSERT_TRUE(Succeeded(libvirt.Virsh(save)));

  const nlohmann::json info = InfoOf(ImagePath());
  EXPECT_EQ(info.at("format"), image.format);
  EXPECT_EQ(info.at("name"), kGuestName);
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  ASSERT_TRUE(Succeeded(Restore(guest)));
  EXPECT_TRUE(GoesOn(guest));
}

const LibvirtImage kLibvirtImages[] = {
    {"RawOld", kOld, {}, {}, "raw"},
    {"RawNew", kNew, {}, {}, "raw"},
    {"RawPastTheCache", kOld, {}, {"--bypass-cache"}, "raw"},
    {"Gzip", kOld, {"save_image_format = \"gzip\""}, {}, "gzip"},
    {"Xz", kNew, {}, {"--image-format", "xz"}, "xz"},
    {"Zstd", kNew, {}, {"--image-format", "zstd"}, "zstd"},
    {"Sparse", kNew, {}, {"--image-format", "sparse", "--parallel-channels", "2"}, "sparse"},
};

INSTANTIATE_TEST_SUITE_P(Formats, LibvirtImageTest, testing::ValuesIn(kLibvirtImages),
                         [](const auto& test) { return test.param.name; });

// vmsave, perhaps `vmimage convert`, then `virsh restore`.
struct ImageForLibvirt {
  std::string name;
  WhichLibvirt libvirt;
  Ram ram;
  std::vector<std::string> save_options;
  std::vector<std::string> convert_options;  // none: as vmsave left it
  std::vector<std::string> restore_options;  // of virsh
};

std::ostream& operator<<(std::ostream& out, const ImageForLibvirt& image) {
  return out << image.name;
}

class ImageForLibvirtTest : public LibvirtTest, public testing::WithParamInterface<ImageForLibvirt> {
 protected:
  // Another image takes the place of ImagePath().
  Outcome Convert(const std::vector<std::string>& options) const {
    const std::string converted = ImagePath("converted.sav");
    std::vector<std::string> command{VMIMAGE_PROGRAM, "convert"};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {ImagePath(), converted});
    Outcome outcome = RunToEnd(command);
    if (outcome.status == 0) std::filesystem::rename(converted, ImagePath());
    return outcome;
  }
};

TEST_P(ImageForLibvirtTest, IsRestoredByVirsh) {
  const ImageForLibvirt& image = GetParam();
  const Guest guest = MakeGuest(image.libvirt, image.ram);
  const Libvirt libvirt(image.libvirt);
  libvirt.Boot(guest);

  ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest, image.save_options)));
  libvirt.WaitForEnd();
  if (!image.convert_options.empty()) {
    ASSERT_TRUE(Succeeded(Convert(image.convert_options)));
  }
  std::vector<std::string> restore{"restore", ImagePath()};
  restore.insert(restore.end(), image.restore_options.begin(), image.restore_options.end());
  ASSERT_TRUE(Succeeded(libvirt.Virsh(restore)));

  EXPECT_EQ(libvirt.State(), "running");
  EXPECT_TRUE(GoesOn(guest));
}

const ImageForLibvirt kImagesForLibvirt[] = {
    {"MultifdOld", kOld, Ram::kPrivate, {"--from", "multifd"}, {}, {}},
    {"MultifdNew", kNew, Ram::kPrivate, {"--from", "multifd"}, {}, {}},
    {"StreamOld", kOld, Ram::kPrivate, {"--from", "stream"}, {}, {}},
    {"MemfdOld", kOld, Ram::kMemfd, {"--from", "memory"}, {}, {}},
    {"MemfdNew", kNew, Ram::kMemfd, {"--from", "memory"}, {}, {}},
    {"FileNew", kNew, Ram::kFile, {"--from", "memory"}, {}, {}},
    {"Precopy", kNew, Ram::kPrivate, {"--live=precopy"}, {}, {}},
    {"PastTheCache", kNew, Ram::kMemfd, {"--bypass-cache"}, {}, {"--bypass-cache"}},
    {"Version3As2", kOld, Ram::kMemfd, {"--image-version", "3"}, {"--to", "2"}, {}},
    {"Gzip", kOld, Ram::kPrivate, {}, {"--to", "2", "--compress", "gzip"}, {}},
    {"Xz", kNew, Ram::kPrivate, {}, {"--to", "2", "--compress", "xz"}, {}},
    {"Zstd", kNew, Ram::kPrivate, {}, {"--to", "2", "--compress", "zstd"}, {}},
    {"Version2AsSparse", kNew, Ram::kPrivate, {}, {"--to", "libvirt-sparse"}, {}},
    {"Version3AsSparse", kNew, Ram::kMemfd, {"--image-version", "3"}, {"--to", "libvirt-sparse"}, {}},
    {"FromQemuAsSparse",
     kNew,
     Ram::kPrivate,
     {"--image-version", "3", "--from", "qemu"},
     {"--to", "libvirt-sparse"},
     {}},
    {"SparseInParallel",
     kNew,
     Ram::kPrivate,
     {"--image-version", "3"},
     {"--to", "libvirt-sparse"},
     {"--parallel-channels", "2", "--bypass-cache"}},
};

INSTANTIATE_TEST_SUITE_P(Ways, ImageForLibvirtTest, testing::ValuesIn(kImagesForLibvirt),
                         [](const auto& test) { return test.param.name; });

TEST_F(LibvirtTest, EndsWithItsGuests) {
  const Guest guest = MakeGuest(kNew);

  std::make_unique<Libvirt>(kNew)->Boot(guest);

  EXPECT_TRUE(StandsStill(guest));
}

TEST_F(LibvirtTest, PausedGuestIsRestoredPaused) {
  const Guest guest = MakeGuest(kNew);
  const Libvirt libvirt(kNew);
  libvirt.Boot(guest);
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"suspend", kGuestName})));

  ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest)));
  libvirt.WaitForEnd();
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"restore", ImagePath()})));

  EXPECT_EQ(libvirt.State(), "paused");
  EXPECT_TRUE(StandsStill(guest));
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"resume", kGuestName})));
  EXPECT_TRUE(GoesOn(guest));
}

// There is room for a longer description in the image.
TEST_F(LibvirtTest, DescriptionIsEditedInPlace) {
  const Guest guest = MakeGuest(kNew);
  const Libvirt libvirt(kNew);
  libvirt.Boot(guest);
  ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest)));
  libvirt.WaitForEnd();

  std::string xml = libvirt.Virsh({"save-image-dumpxml", ImagePath()}).out;
  xml.insert(xml.find("<memory "), "<title>" + std::string(1000, 'x') + "</title>");
  WriteWholeFile(files_.Path("longer.xml"), xml);
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"save-image-define", ImagePath(), files_.Path("longer.xml"), "--paused"})));

  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"restore", ImagePath()})));
  EXPECT_EQ(libvirt.State(), "paused");
  EXPECT_EQ(libvirt.Virsh({"desc", "--title", kGuestName}).out.find(std::string(1000, 'x')), 0U);
}

TEST_F(LibvirtTest, GuestThatRunsOnIsSavedByLibvirtNext) {
  const Guest guest = MakeGuest(kNew);
  const Libvirt libvirt(kNew);
  libvirt.Boot(guest);
  ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest, {"--after", "resume"})));

  EXPECT_EQ(libvirt.State(), "running");
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"save", kGuestName, ImagePath("libvirt.sav")})));
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"restore", ImagePath("libvirt.sav")})));

  EXPECT_TRUE(GoesOn(guest));
}

TEST_F(LibvirtTest, Version3BecomesSparseInPlace) {
  const Guest guest = MakeGuest(kNew);
  const Libvirt libvirt(kNew);
  libvirt.Boot(guest);
  ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest, {"--image-version", "3"})));
  libvirt.WaitForEnd();

  ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "convert", "--in-place", "--to", "libvirt-sparse", ImagePath()})));
  ASSERT_TRUE(Succeeded(libvirt.Virsh({"restore", ImagePath()})));

  EXPECT_TRUE(GoesOn(guest));
}

class OlderHostTest : public LibvirtTest {
 protected:
  // With the old libvirt and the old QEMU, which hosts usually have under one path: nothing else is new in the XML.
  testing::AssertionResult RestoredOnOlderHost(const std::string& image) const {
    const Guest guest = MakeGuest(kOld);
    const std::string xml = files_.Path("older.xml");
    WriteWholeFile(xml, DomainXml(guest));
    const Libvirt libvirt(kOld);
    const testing::AssertionResult restored = Succeeded(libvirt.Virsh({"restore", image, "--xml", xml}));
    return restored ? GoesOn(guest) : restored;
  }

  Guest guest_ = MakeGuest(kNew);
};

TEST_F(OlderHostTest, RestoresWhatVmsaveSavedOnANewOne) {
  {
    const Libvirt libvirt(kNew);
    libvirt.Boot(guest_);
    ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest_)));
  }

  EXPECT_TRUE(RestoredOnOlderHost(ImagePath()));
}

TEST_F(OlderHostTest, RestoresASparseImageThatWasConverted) {
  {
    const Libvirt libvirt(kNew);
    libvirt.Boot(guest_);
    ASSERT_TRUE(Succeeded(libvirt.Virsh({"save", kGuestName, ImagePath(), "--image-format", "sparse"})));
  }
  const std::string converted = ImagePath("converted.sav");
  ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "convert", "--to", "2", ImagePath(), converted})));

  EXPECT_TRUE(RestoredOnOlderHost(converted));
}

TEST_F(LibvirtTest, Version3IsRefusedByLibvirtAndRestoredByVmrestore) {
  const Guest guest = MakeGuest(kNew);
  const Libvirt libvirt(kNew);
  libvirt.Boot(guest);
  ASSERT_TRUE(Succeeded(SaveDomain(libvirt, guest, {"--image-version", "3"})));
  libvirt.WaitForEnd();

  EXPECT_TRUE(Refused(libvirt.Virsh({"restore", ImagePath()}), 1, "image version is not supported"));

  ASSERT_TRUE(Succeeded(Restore(guest)));
  EXPECT_TRUE(GoesOn(guest));
}

}  // namespace
}  // namespace vmsave
