// Options, configuration and descriptions; what vmimage tells.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

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
};

TEST_F(ConfigurationTest, ChoosesTheImageVersion) {
  ASSERT_TRUE(Succeeded(SaveWith("# default\nsave_image_version = 3\n")));

  EXPECT_EQ(InfoOf(ImagePath()).at("version"), 3);
}

TEST_F(ConfigurationTest, IsOverriddenByTheOption) {
  ASSERT_TRUE(Succeeded(SaveWith("save_image_version = 3\n", {"--image-version", "2"})));

  EXPECT_EQ(InfoOf(ImagePath()).at("version"), 2);
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

  // Told in one line, which begins with the program's name and ends with where to read on.
  static testing::AssertionResult IsWrongUsage(const std::string& program, const std::vector<std::string>& arguments,
                                               const std::string& message) {
    std::vector<std::string> command{program};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const Outcome outcome = RunToEnd(command);
    const std::string name = std::filesystem::path(program).filename();
    const std::string wanted = fmt::format("{0}: {1}; see {0} --help\n", name, message);
    if (outcome.status == 2 && outcome.out.empty() && outcome.err == wanted) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "status " << outcome.status << ": " << outcome.err << outcome.out;
  }

  testing::AssertionResult VmsaveRefuses(std::vector<std::string> options, const std::string& message) const {
    options.push_back(ImagePath());
    return IsWrongUsage(VMSAVE_PROGRAM, options, message);
  }
};

TEST_F(UsageTest, VmsaveNeedsOneGuestAndAnImage) {
  EXPECT_TRUE(IsWrongUsage(VMSAVE_PROGRAM, {"--synthetic", "1M"}, "IMAGE is missing: the file to write"));
  EXPECT_TRUE(VmsaveRefuses({}, "no guest is named: give --qmp SOCKET"));
  EXPECT_TRUE(
      VmsaveRefuses({"--synthetic", "1M", "--qmp", "socket"}, "--qmp and --synthetic: only one of them can be given"));
  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(UsageTest, VmsaveRefusesWhatItDoesNotKnow) {
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "1M", "--no-such-option"}, "unknown option: --no-such-option"));
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "1M", "other.sav"}, "unexpected argument: " + ImagePath()));
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "1M", "--parallel", "0"}, "--parallel: \"0\" is no number from 1 to 256"));
  EXPECT_TRUE(
      VmsaveRefuses({"--synthetic", "1M", "--image-version", "1"}, "--image-version: \"1\" is no number from 2 to 3"));
  EXPECT_TRUE(
      VmsaveRefuses({"--qmp", "socket", "--after", "later"}, "--after: \"later\" is none of quit, pause, resume"));
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "much"}, "--synthetic: \"much\" is not a size (write it as 512M or 4G)"));
  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(UsageTest, VmsaveRefusesWhatDoesNotGoTogether) {
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "1M", "--no-checksums"},
                            "--no-checksums: a version 2 image has none (it goes with --image-version 3)"));
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "1M", "--running", "--paused"},
                            "--running and --paused: only one of them can be given"));
  EXPECT_TRUE(VmsaveRefuses({"--synthetic", "1M", "--after", "resume"},
                            "--after and --synthetic: only one of them can be given"));
  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(UsageTest, WrongUsageOfVmrestore) {
  const std::string no_qemu = "no QEMU is named: give -- and the QEMU command behind IMAGE, or --qmp SOCKET";
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"vm.sav"}, no_qemu));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"vm.sav", "--"}, no_qemu));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--", "qemu"}, "IMAGE is missing: the image to restore"));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--qmp", "socket", "vm.sav", "--", "qemu"},
                           "--qmp and a QEMU command: only one of them can be given"));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--detach", "--qmp", "socket", "vm.sav"},
                           "--qmp and --detach: only one of them can be given"));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--recover", "vm.sav"},
                           "--recover: no QEMU is named (give --qmp and a socket of the QEMU that has the guest)"));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--no-such-option", "vm.sav", "--", "qemu"},
                           "unknown option: --no-such-option"));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--via", "magic", "vm.sav", "--", "qemu"},
                           "--via: \"magic\" is none of auto, memory, native, multifd, stream"));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"vm.sav", "other.sav", "--", "qemu"}, "unexpected argument: other.sav"));
}

// Whatever QEMU's options look like to us: -h is help, -hda is a disk.
TEST_F(UsageTest, VmrestoreSaysThatTheDashesAreMissing) {
  const std::string message = "-- is missing before the QEMU command: qemu-system-x86_64";
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"vm.sav", "qemu-system-x86_64", "-hda", "disk", "-m", "1G"}, message));
  EXPECT_TRUE(IsWrongUsage(VMRESTORE_PROGRAM, {"--detach", "vm.sav", "qemu-system-x86_64", "--version"}, message));
}

TEST_F(UsageTest, WrongUsageOfVmimage) {
  EXPECT_TRUE(IsWrongUsage(VMIMAGE_PROGRAM, {},
                           "no command is given: it is one of info, verify, convert, extract, dumpxml, setxml, edit"));
  EXPECT_TRUE(IsWrongUsage(VMIMAGE_PROGRAM, {"info"}, "IMAGE is missing: the image to look into"));
  EXPECT_TRUE(IsWrongUsage(VMIMAGE_PROGRAM, {"guess", "vm.sav"}, "unknown command: guess"));
  EXPECT_TRUE(IsWrongUsage(VMIMAGE_PROGRAM, {"verify", "--fast", "vm.sav"}, "unknown option: --fast"));
}

TEST_F(UsageTest, HelpFitsATerminalOf80Columns) {
  for (const std::vector<std::string>& command : {std::vector<std::string>{VMSAVE_PROGRAM},
                                                  {VMRESTORE_PROGRAM},
                                                  {VMIMAGE_PROGRAM},
                                                  {VMIMAGE_PROGRAM, "info"},
                                                  {VMIMAGE_PROGRAM, "verify"},
                                                  {VMIMAGE_PROGRAM, "convert"},
                                                  {VMIMAGE_PROGRAM, "extract"},
                                                  {VMIMAGE_PROGRAM, "dumpxml"},
                                                  {VMIMAGE_PROGRAM, "setxml"},
                                                  {VMIMAGE_PROGRAM, "edit"}}) {
    std::vector<std::string> asking = command;
    asking.emplace_back("--help");
    const Outcome help = RunToEnd(asking);
    EXPECT_TRUE(Succeeded(help));
    EXPECT_EQ(help.out.find("Usage: vm"), 0U) << help.out;
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LT(line.size(), 80U) << line;
  }
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

class DamagedHeaderTest : public EndToEndTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Succeeded(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "4M", "--image-version", "3", ImagePath()})));
    std::fstream file(ImagePath(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(44);  // a compatible feature that nobody knows
    file.put('\1');
    ASSERT_TRUE(file.good());
  }
};

TEST_F(DamagedHeaderTest, InfoShowsWhatItCanAndSaysSo) {
  const Outcome info = RunToEnd({VMIMAGE_PROGRAM, "info", ImagePath()});

  EXPECT_EQ(info.status, 3);
  EXPECT_NE(info.out.find("DAMAGED:     header or description"), std::string::npos) << info.out;
  EXPECT_NE(info.out.find("pc.ram"), std::string::npos) << info.out;
}

TEST_F(DamagedHeaderTest, InfoForScriptsSaysSo) {
  const Outcome info = RunToEnd({VMIMAGE_PROGRAM, "info", "--json", ImagePath()});

  EXPECT_EQ(info.status, 3);
  const nlohmann::json object = nlohmann::json::parse(info.out);
  EXPECT_EQ(object.at("damage").size(), 1U) << object;
  EXPECT_EQ(object.at("version"), 3);
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
    return InfoOf(ImagePath());
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
  EXPECT_TRUE(info.at("damage").empty());
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
