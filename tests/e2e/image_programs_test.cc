// Options, configuration and descriptions; what vmimage tells.
#include <nlohmann/json.hpp>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr const char* kDescription =
    "<domain type='kvm'><name>from-a-file</name><memory unit='KiB'>65536</memory></domain>\n";

class ConfigurationTest : public EndToEndTest {
 protected:
  void SetUp() override {}  // no QEMU needed

  Outcome SaveWith(const std::string& configuration, const std::vector<std::string>& options = {}) const {
    WriteWholeFile(files_.Path("vmsave.conf"), configuration);
    std::vector<std::string> command{VMSAVE_PROGRAM, "--synthetic", "4M", "--config", files_.Path("vmsave.conf")};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(ImagePath());
    return RunToEnd(command);
  }

  nlohmann::json Info() const {
    return nlohmann::json::parse(RunToEnd({VMIMAGE_PROGRAM, "info", "--json", ImagePath()}).out);
  }
};

TEST_F(ConfigurationTest, ChoosesTheImageVersion) {
  ASSERT_TRUE(Succeeded(SaveWith("# default\nsave_image_version = 3\n")));

  EXPECT_EQ(Info().at("version"), 3);
}

TEST_F(ConfigurationTest, IsOverriddenByTheOption) {
  ASSERT_TRUE(Succeeded(SaveWith("save_image_version = 3\n", {"--image-version", "2"})));

  EXPECT_EQ(Info().at("version"), 2);
}

TEST_F(ConfigurationTest, UnknownKeyIsRefusedWithItsLine) {
  EXPECT_TRUE(Refused(SaveWith("parallel = 2\n\nsave_image_versoin = 3\n"), 2, "line 3"));
  EXPECT_TRUE(Refused(SaveWith("save_image_versoin = 3\n"), 2, "save_image_versoin"));

  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(ConfigurationTest, BadValueIsRefusedWithItsLine) {
  EXPECT_TRUE(Refused(SaveWith("\nsave_image_version = 4\n"), 2, "line 2"));
  EXPECT_TRUE(Refused(SaveWith("parallel = 0\n"), 2, "parallel"));
  EXPECT_TRUE(Refused(SaveWith("bypass_cache = 1\n"), 2, "bypass_cache"));
  EXPECT_TRUE(Refused(SaveWith("io_engine = \"fast\"\n"), 2, "io_engine"));
  EXPECT_TRUE(Refused(SaveWith("parallel =\n"), 2, "line"));

  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(ConfigurationTest, NamedFileMustBeThere) {
  EXPECT_TRUE(Refused(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "4M", "--config", "/nowhere.conf", ImagePath()}), 1,
                      "/nowhere.conf"));
}

class UsageTest : public EndToEndTest {
 protected:
  void SetUp() override {}  // no QEMU needed
};

TEST_F(UsageTest, WrongUsageOfVmsave) {
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--qmp", "socket", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--no-such-option", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--parallel", "0", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--parallel", "257", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--image-version", "1", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--no-checksums", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--after", "later", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", "--running", "--paused", ImagePath()}).status, 2);
  EXPECT_EQ(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "much", ImagePath()}).status, 2);
  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(UsageTest, WrongUsageOfVmrestore) {
  ASSERT_TRUE(Succeeded(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "1M", ImagePath()})));

  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, ImagePath()}), 2, "--qmp"));
  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, "--qmp", "socket", ImagePath(), "--", "qemu"}), 2, "either"));
  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, "--detach", "--qmp", "socket", ImagePath()}), 2, "--detach"));
  EXPECT_EQ(RunToEnd({VMRESTORE_PROGRAM, "--no-such-option", ImagePath(), "--", "qemu"}).status, 2);
  EXPECT_EQ(RunToEnd({VMRESTORE_PROGRAM, "--via", "magic", ImagePath(), "--", "qemu"}).status, 2);
  EXPECT_EQ(RunToEnd({VMRESTORE_PROGRAM, ImagePath(), "--"}).status, 2);
}

TEST_F(UsageTest, WrongUsageOfVmimage) {
  EXPECT_EQ(RunToEnd({VMIMAGE_PROGRAM}).status, 2);
  EXPECT_EQ(RunToEnd({VMIMAGE_PROGRAM, "info"}).status, 2);
  EXPECT_EQ(RunToEnd({VMIMAGE_PROGRAM, "guess", ImagePath()}).status, 2);
}

TEST_F(UsageTest, HelpAndVersionAreNoErrors) {
  for (const char* program : {VMSAVE_PROGRAM, VMRESTORE_PROGRAM, VMIMAGE_PROGRAM}) {
    EXPECT_TRUE(Succeeded(RunToEnd({program, "--help"})));
    EXPECT_TRUE(Succeeded(RunToEnd({program, "--version"})));
  }
}

TEST_F(UsageTest, ImageThatIsNotThere) {
  EXPECT_TRUE(Refused(RunToEnd({VMIMAGE_PROGRAM, "info", ImagePath()}), 1, ImagePath()));
  EXPECT_TRUE(Refused(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()}), 1, ImagePath()));
  EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, ImagePath(), "--", "qemu"}), 1, ImagePath()));
}

class ImageInfoTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    GuestShape shape;
    shape.qemu = GetParam();
    saved_ = std::make_unique<Guest>(files_, "saved", shape);
    saved_->Boot();
  }

  nlohmann::json SavedAs(const std::vector<std::string>& options) const {
    EXPECT_TRUE(Succeeded(Save(*saved_, options)));
    return nlohmann::json::parse(RunToEnd({VMIMAGE_PROGRAM, "info", "--json", ImagePath()}).out);
  }

  std::unique_ptr<Guest> saved_;
};

INSTANTIATE_TEST_SUITE_P(Both, ImageInfoTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(ImageInfoTest, TellsAboutVersion3) {
  const nlohmann::json info = SavedAs({"--image-version", "3"});

  EXPECT_EQ(info.at("version"), 3);
  EXPECT_EQ(info.at("machine"), "pc-i440fx-7.2");
  EXPECT_EQ(info.at("name"), "vm1");
  EXPECT_EQ(info.at("was_running"), true);
  EXPECT_EQ(info.at("checksums"), true);
  EXPECT_EQ(info.at("blocks").at(0).at("name"), "pc.ram");
  EXPECT_EQ(info.at("blocks").at(0).at("length"), 64 << 20);
  EXPECT_GT(info.at("blocks").at(0).at("pages_present"), 16384 * 4 / 10);
  EXPECT_LT(info.at("blocks").at(0).at("pages_present"), 16384 * 6 / 10);
}

TEST_P(ImageInfoTest, TellsAboutVersion2) {
  const nlohmann::json info = SavedAs({"--image-version", "2", "--paused"});

  EXPECT_EQ(info.at("version"), 2);
  EXPECT_EQ(info.at("was_running"), false);
  EXPECT_EQ(info.at("checksums"), false);
  EXPECT_GT(info.at("blocks").at(0).at("pages_present"), 16384 * 4 / 10);
  EXPECT_LT(info.at("blocks").at(0).at("pages_present"), 16384 * 6 / 10);
}

TEST_P(ImageInfoTest, DescriptionIsThatOfTheFile) {
  WriteWholeFile(files_.Path("vm1.xml"), kDescription);

  const nlohmann::json info = SavedAs({"--image-version", "3", "--description", files_.Path("vm1.xml")});

  EXPECT_EQ(info.at("name"), "from-a-file");
  EXPECT_NE(RunToEnd({VMIMAGE_PROGRAM, "info", ImagePath()}).out.find("from-a-file"), std::string::npos);
}

TEST_P(ImageInfoTest, DescriptionThatIsNoXmlIsRefused) {
  WriteWholeFile(files_.Path("vm1.xml"), "<domain>");

  EXPECT_TRUE(Refused(Save(*saved_, {"--description", files_.Path("vm1.xml")}), 2, files_.Path("vm1.xml")));
  EXPECT_TRUE(Refused(Save(*saved_, {"--description", files_.Path("none.xml")}), 1, files_.Path("none.xml")));

  EXPECT_TRUE(GoesOn(*saved_));
  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_P(ImageInfoTest, VerifyFindsASoundImageSound) {
  SavedAs({"--image-version", "3"});

  const Outcome verify = RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()});

  EXPECT_TRUE(Succeeded(verify));
  EXPECT_NE(verify.out.find("no damage"), std::string::npos) << verify.out;
}

TEST_P(ImageInfoTest, VerifySaysWhereThereAreNoChecksums) {
  const std::vector<std::vector<std::string>> kinds{{"--image-version", "2"},
                                                    {"--image-version", "3", "--no-checksums"}};
  for (std::vector<std::string> options : kinds) {
    options.insert(options.end(), {"--force", "--after", "resume"});
    SavedAs(options);

    const Outcome verify = RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()});

    EXPECT_TRUE(Succeeded(verify));
    EXPECT_NE(verify.out.find("no checksums"), std::string::npos) << verify.out;
  }
}

}  // namespace
}  // namespace vmsave
