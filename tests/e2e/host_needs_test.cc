// What vmimage info says of the hosts that can take an image.
#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr const char* kLibvirtDomain =
    "<domain type='kvm'><name>vm1</name><memory unit='KiB'>4096</memory>"
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>\n";

class HostNeedsTest : public EndToEndTest {
 protected:
  void SetUp() override {}  // no QEMU needed

  void SaveAs(const std::string& version, const std::vector<std::string>& options = {}) const {
    std::vector<std::string> command{VMSAVE_PROGRAM, "--synthetic", "4M", "--image-version", version};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(ImagePath());
    ASSERT_TRUE(Succeeded(RunToEnd(command)));
  }

  std::string Info() const { return RunToEnd({VMIMAGE_PROGRAM, "info", ImagePath()}).out; }
};

testing::AssertionResult HasLine(const std::string& text, const std::string& line) {
  if (text.find("\n" + line + "\n") != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "there is no line \"" << line << "\" in:\n" << text;
}

TEST_F(HostNeedsTest, AreToldOfVersion3WithTheCommandThatMakesOneForVirsh) {
  SaveAs("3");
  const std::string info = Info();
  const nlohmann::json needs = InfoOf(ImagePath()).at("needs");

  EXPECT_TRUE(HasLine(info, "QEMU:        one that has machine type synthetic"));
  EXPECT_TRUE(HasLine(info, "vmrestore:   into such a QEMU, 4.0 or newer"));
  EXPECT_NE(info.find("\nQEMU alone:  9.0 or newer, from byte "), std::string::npos) << info;
  EXPECT_TRUE(HasLine(info,
                      "virsh:       cannot restore it; vmimage convert --to libvirt-sparse for libvirt 11.2 or newer, "
                      "--to 2 for any"));
  EXPECT_EQ(needs.at("qemu").at("since"), nullptr);
  EXPECT_EQ(needs.at("qemu_alone"), nlohmann::json({{"possible", true}, {"since", "9.0"}}));
  EXPECT_EQ(needs.at("virsh"), nlohmann::json({{"possible", false}, {"since", nullptr}}));
}

TEST_F(HostNeedsTest, AreNoneOfVersion2) {
  SaveAs("2");
  const std::string info = Info();
  const nlohmann::json needs = InfoOf(ImagePath()).at("needs");

  EXPECT_NE(info.find("\nQEMU alone:  any, from byte "), std::string::npos) << info;
  EXPECT_TRUE(HasLine(info, "virsh:       any libvirt"));
  EXPECT_EQ(needs.at("qemu_alone"), nlohmann::json({{"possible", true}, {"since", nullptr}}));
  EXPECT_EQ(needs.at("virsh"), nlohmann::json({{"possible", true}, {"since", nullptr}}));
}

TEST_F(HostNeedsTest, SayWhetherTheDescriptionIsALibvirtDomain) {
  WriteWholeFile(files_.Path("vm1.xml"), kLibvirtDomain);

  SaveAs("2");
  EXPECT_NE(Info().find("\ndescription: vmsave's own"), std::string::npos) << Info();
  EXPECT_EQ(InfoOf(ImagePath()).at("description_names_devices"), false);

  SaveAs("2", {"--force", "--description", files_.Path("vm1.xml")});
  EXPECT_EQ(Info().find("description:"), std::string::npos) << Info();
  EXPECT_EQ(InfoOf(ImagePath()).at("description_names_devices"), true);
}

}  // namespace
}  // namespace vmsave
