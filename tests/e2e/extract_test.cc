// RAM that vmimage takes out of an image, as other programs see it.
#include <elf.h>
#include <fmt/format.h>

#include <cstring>
#include <filesystem>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr std::string_view kBanner = "vmsave test guest: seed ";
constexpr const char* kGdb = "/usr/bin/gdb";

// Where the guest's program has its banner in memory, by its own ELF file.
std::uint64_t AddressOfBanner() {
  const std::string program = ReadWholeFile(TEST_GUEST_KERNEL);
  const std::size_t at = program.find(kBanner);
  Elf32_Ehdr head;
  std::memcpy(&head, program.data(), sizeof head);
  for (int i = 0; i < head.e_phnum; ++i) {
    Elf32_Phdr load;
    std::memcpy(&load, program.data() + head.e_phoff + static_cast<std::size_t>(i) * sizeof load, sizeof load);
    if (load.p_type == PT_LOAD && at >= load.p_offset && at < load.p_offset + load.p_filesz) {
      return load.p_paddr + (at - load.p_offset);
    }
  }
  throw std::runtime_error("the test guest has no banner");
}

class ExtractFromGuestTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    GuestShape shape;
    shape.qemu = GetParam();
    Guest guest(files_, "saved", shape);
    guest.Boot();
    ASSERT_TRUE(Succeeded(Save(guest, {"--image-version", "3"})));
  }
};

INSTANTIATE_TEST_SUITE_P(Both, ExtractFromGuestTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(ExtractFromGuestTest, GdbFindsTheGuestsBannerAtItsAddress) {
  if (!std::filesystem::exists(kGdb)) GTEST_SKIP() << "there is no gdb";
  const std::string core = files_.Path("guest.core");

  ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "extract", "--elf", core, ImagePath()})));

  const std::string show = fmt::format("x/s {:#x}", AddressOfBanner());
  const Outcome gdb = RunToEnd({kGdb, "-nx", "-batch", "-c", core, "-ex", show});
  EXPECT_NE(gdb.out.find(fmt::format("\"{}\"", kBanner)), std::string::npos) << gdb.out << gdb.err;
}

TEST_P(ExtractFromGuestTest, ABlockIsARawFileOfItsLength) {
  const std::string ram = files_.Path("pc.ram");

  ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "extract", "--block", "pc.ram", "--output", ram, ImagePath()})));

  EXPECT_EQ(std::filesystem::file_size(ram), 64U << 20);
  EXPECT_EQ(ReadWholeFile(ram).compare(AddressOfBanner(), kBanner.size(), kBanner), 0);
}

TEST_P(ExtractFromGuestTest, WrongUseChangesNothing) {
  const std::string ram = files_.Path("ram");
  const std::vector<std::string> extract{VMIMAGE_PROGRAM, "extract"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), extract.begin(), extract.end());
    arguments.push_back(ImagePath());
    return RunToEnd(arguments);
  };
  EXPECT_TRUE(Refused(with({}), 2, "nothing to extract is named"));
  EXPECT_TRUE(Refused(with({"--block", "pc.ram"}), 2, "go together"));
  EXPECT_TRUE(Refused(with({"--block", "pc.ram", "--elf", ram}), 2, "only one of them"));
  EXPECT_TRUE(Refused(with({"--block", "none", "--output", ram}), 2, "it has pc.ram"));
  EXPECT_FALSE(std::filesystem::exists(ram));
  WriteWholeFile(ram, "mine");
  EXPECT_TRUE(Refused(with({"--elf", ram}), 1, "it exists already"));
  EXPECT_EQ(ReadWholeFile(ram), "mine");
  EXPECT_TRUE(Refused(with({"--elf", ImagePath(), "--force"}), 2, "it is the image itself"));
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
}

}  // namespace
}  // namespace vmsave
