// Which source a save takes, that it says so and why, and what it says where a wish cannot be granted.
#include <ostream>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

struct Choice {
  std::string name;
  WhichQemu qemu;
  Ram ram;
  std::vector<std::string> options;
  std::string summary;  // of the source and why
};

std::ostream& operator<<(std::ostream& out, const Choice& choice) {
  return out << choice.name;
}

class SourceTest : public EndToEndTest {
 protected:
  void Boot(WhichQemu qemu, Ram ram) {
    GuestShape shape;
    shape.qemu = qemu;
    shape.ram = ram;
    guest_ = std::make_unique<Guest>(files_, "guest", shape);
    guest_->Boot();
  }

  std::unique_ptr<Guest> guest_;
};

class AutomaticSourceTest : public SourceTest, public testing::WithParamInterface<Choice> {};

TEST_P(AutomaticSourceTest, IsTheBestThatWorksAndTheSummarySaysWhy) {
  Boot(GetParam().qemu, GetParam().ram);
  std::vector<std::string> options = GetParam().options;
  options.insert(options.end(), {"--after", "resume"});

  const Outcome save = Save(*guest_, options);

  ASSERT_TRUE(Succeeded(save));
  EXPECT_NE(save.out.find(GetParam().summary), std::string::npos) << save.out;
}

std::vector<Choice> Choices() {
  const std::vector<std::string> version2{"--image-version", "2"};
  const std::vector<std::string> version3{"--image-version", "3"};
  const std::vector<std::string> live{"--image-version", "3", "--live"};
  const std::vector<std::string> snapshot{"--image-version", "3", "--live=snapshot"};
  constexpr WhichQemu kOld = WhichQemu::kOld;
  constexpr WhichQemu kNew = WhichQemu::kNew;
  return {{"SharedRamIsRead", kNew, Ram::kFile, version3, ", from memory\n"},
          {"SharedRamIsReadVersion2Old", kOld, Ram::kMemfd, version2, ", from memory\n"},
          {"PrivateRamIsSent", kNew, Ram::kPrivate, version3, ", from multifd (the guest's RAM pc.ram is private"},
          {"PrivateRamIsSentOld", kOld, Ram::kPrivate, version3, ", from multifd (the guest's RAM pc.ram is private"},
          {"Version2OfPrivateRamIsSent", kNew, Ram::kPrivate, version2,
           ", from multifd (the guest's RAM pc.ram is private"},
          {"SharedRamOfARunningGuestIsNotRead", kNew, Ram::kFile, live, ", from multifd\n"},
          {"SharedRamOfARunningGuestIsNotReadOld", kOld, Ram::kFile, live, ", from multifd\n"},
          {"SnapshotIsAStream", kNew, Ram::kPrivate, snapshot, ", from stream\n"},
          {"SnapshotIsAStreamOld", kOld, Ram::kPrivate, snapshot, ", from stream\n"}};
}

INSTANTIATE_TEST_SUITE_P(Guests, AutomaticSourceTest, testing::ValuesIn(Choices()),
                         [](const auto& shown) { return shown.param.name; });

struct Refusal {
  std::string name;
  WhichQemu qemu;
  Ram ram;
  std::vector<std::string> options;
  int status;
  std::string reason;
};

std::ostream& operator<<(std::ostream& out, const Refusal& refusal) {
  return out << refusal.name;
}

class RefusedSourceTest : public SourceTest, public testing::WithParamInterface<Refusal> {};

TEST_P(RefusedSourceTest, SaysWhyAndTheGuestIsAsItWas) {
  Boot(GetParam().qemu, GetParam().ram);
  const nlohmann::json settings = MigrationSettingsOf(*guest_);

  const Outcome save = Save(*guest_, GetParam().options);

  EXPECT_TRUE(Refused(save, GetParam().status, GetParam().reason));
  EXPECT_TRUE(FilesBesideImage().empty());
  EXPECT_EQ(guest_->Status(), "running");
  EXPECT_EQ(nlohmann::json::diff(settings, MigrationSettingsOf(*guest_)), nlohmann::json::array());
  EXPECT_TRUE(GoesOn(*guest_));
}

std::vector<Refusal> Refusals() {
  constexpr WhichQemu kOld = WhichQemu::kOld;
  constexpr WhichQemu kNew = WhichQemu::kNew;
  constexpr int kFailed = 1;
  constexpr int kUsage = 2;
  return {
      {"MemoryThatIsPrivate", kNew, Ram::kPrivate, {"--from", "memory"}, kFailed, "private to QEMU"},
      {"MemoryThatIsPrivateOld", kOld, Ram::kPrivate, {"--from", "memory"}, kFailed, "private to QEMU"},
      {"QemuThatIsTooOld", kOld, Ram::kPrivate, {"--from", "qemu", "--image-version", "3"}, kFailed, "QEMU 7.2 cannot"},
      {"QemuForVersion2", kNew, Ram::kPrivate, {"--from", "qemu", "--image-version", "2"}, kUsage, "version 3 only"},
      {"MemoryOfARunningGuest", kNew, Ram::kFile, {"--from", "memory", "--live"}, kUsage, "must stand still"},
      {"SnapshotOverMultifd", kNew, Ram::kPrivate, {"--from", "multifd", "--live=snapshot"}, kUsage, "one stream"},
      {"SnapshotByQemu",
       kNew,
       Ram::kPrivate,
       {"--from", "qemu", "--live=snapshot", "--image-version", "3"},
       kUsage,
       "one stream"},
      // QEMU's own reason.
      {"SnapshotOfSharedMemory", kNew, Ram::kFile, {"--live=snapshot"}, kFailed, "ackground"},
      {"SnapshotOfSharedMemoryOld", kOld, Ram::kFile, {"--live=snapshot"}, kFailed, "ackground"}};
}

INSTANTIATE_TEST_SUITE_P(Guests, RefusedSourceTest, testing::ValuesIn(Refusals()),
                         [](const auto& shown) { return shown.param.name; });

class UnstartedGuestTest : public EachQemuTest {};

INSTANTIATE_TEST_SUITE_P(Both, UnstartedGuestTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

// QEMU would end itself over a snapshot.
TEST_P(UnstartedGuestTest, IsNotSavedAsASnapshot) {
  GuestShape shape;
  shape.qemu = GetParam();
  shape.ram = Ram::kPrivate;
  Guest guest(files_, "guest", shape);
  guest.Start({"-S"});

  EXPECT_TRUE(Refused(Save(guest, {"--live=snapshot"}), 1, "has not run yet"));

  EXPECT_TRUE(FilesBesideImage().empty());
  guest.Connect()->Execute("cont");
  EXPECT_TRUE(GoesOn(guest));
}

// No guest is asked.
TEST(SaveOptionsTest, ThoseThatDoNotGoTogetherAreRefused) {
  const std::vector<std::vector<std::string>> wrong{{"--downtime-limit", "100"},
                                                    {"--timeout", "10"},
                                                    {"--auto-converge"},
                                                    {"--live=snapshot", "--downtime-limit", "100"},
                                                    {"--live=snapshot", "--timeout", "10"},
                                                    {"--live=snapshot", "--auto-converge"},
                                                    {"--live", "--downtime-limit", "0"},
                                                    {"--live", "--downtime-limit", "2000001"},
                                                    {"--live", "--timeout", "0"},
                                                    {"--live=postcopy"},
                                                    {"--from", "disk"},
                                                    {"--max-bandwidth", "fast"},
                                                    {"--from", "memory", "--max-bandwidth", "1M"}};
  for (const std::vector<std::string>& options : wrong) {
    std::vector<std::string> command{VMSAVE_PROGRAM, "--qmp", "/nowhere"};
    command.insert(command.end(), options.begin(), options.end());
    command.emplace_back("vm1.sav");
    EXPECT_TRUE(Refused(RunToEnd(command), 2, "--help")) << testing::PrintToString(options);
  }
}

}  // namespace
}  // namespace vmsave
