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
  return {{"MemoryThatIsPrivate", kNew, Ram::kPrivate, {"--from", "memory"}, kFailed, "private to QEMU"},
          {"MemoryThatIsPrivateOld", kOld, Ram::kPrivate, {"--from", "memory"}, kFailed, "private to QEMU"},
          {"QemuThatIsTooOld", kOld, Ram::kPrivate, {"--from", "qemu", "--image-version", "3"}, kFailed, "(9.1 can)"},
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

TEST_F(SourceTest, BandwidthThatHadNoEffectIsTold) {
  Boot(WhichQemu::kNew, Ram::kFile);

  const Outcome save = Save(*guest_, {"--max-bandwidth", "500M"});

  ASSERT_TRUE(Succeeded(save));
  EXPECT_NE(save.out.find(", from memory\n"), std::string::npos) << save.out;
  EXPECT_NE(save.err.find("vmsave: --max-bandwidth had no effect"), std::string::npos) << save.err;
}

TEST_F(SourceTest, BandwidthOfNoLimitIsNothingToTell) {
  Boot(WhichQemu::kNew, Ram::kFile);

  const Outcome save = Save(*guest_, {"--max-bandwidth", "0", "--from", "memory"});

  ASSERT_TRUE(Succeeded(save));
  EXPECT_EQ(save.err, "");
}

// Of a guest that nobody listens for: it is not asked.
Outcome RunWith(std::vector<std::string> options) {
  options.insert(options.begin(), {VMSAVE_PROGRAM, "--qmp", "/nowhere"});
  options.emplace_back("/nowhere/vm1.sav");
  return RunToEnd(options);
}

void ExpectUsageError(const std::vector<std::string>& options, const std::string& message) {
  const Outcome outcome = RunWith(options);
  EXPECT_EQ(outcome.status, 2) << testing::PrintToString(options);
  EXPECT_EQ(outcome.err, "vmsave: " + message + "; see vmsave --help\n");
}

TEST(SaveOptionsTest, SourceThatExcludesAnotherWishIsToldWithIt) {
  ExpectUsageError({"--from", "memory", "--live"}, "--from memory and --live: the guest must stand still for it");
  ExpectUsageError({"--from", "memory", "--live=snapshot"},
                   "--from memory and --live=snapshot: the guest must stand still for it");
  ExpectUsageError({"--from", "multifd", "--live=snapshot"},
                   "--from multifd and --live=snapshot: QEMU sends a snapshot as one stream");
  ExpectUsageError({"--from", "qemu", "--live=snapshot", "--image-version", "3"},
                   "--from qemu and --live=snapshot: QEMU sends a snapshot as one stream");
  ExpectUsageError({"--from", "qemu", "--image-version", "2"},
                   "--from qemu and image version 2: QEMU writes --image-version 3 only");
}

TEST(SaveOptionsTest, SourceThatExcludesAnotherWishHasItsClosingJsonLine) {
  const Outcome outcome = RunWith({"--progress", "json", "--from", "memory", "--live"});

  EXPECT_EQ(outcome.status, 2);
  EXPECT_TRUE(nlohmann::json::parse(outcome.out).contains("failed")) << outcome.out;
}

TEST(SaveOptionsTest, LimitsOfPrecopyNameWhatTheyNeed) {
  for (const std::vector<std::string>& limit :
       {std::vector<std::string>{"--downtime-limit", "100"}, std::vector<std::string>{"--timeout", "10"},
        std::vector<std::string>{"--auto-converge"}}) {
    ExpectUsageError(limit, limit.front() + ": it needs --live=precopy");
    std::vector<std::string> of_a_snapshot = limit;
    of_a_snapshot.emplace_back("--live=snapshot");
    ExpectUsageError(of_a_snapshot, limit.front() + ": it needs --live=precopy");
  }
}

TEST(SaveOptionsTest, BandwidthThatWouldHaveNoEffectIsRefused) {
  ExpectUsageError({"--max-bandwidth", "1M", "--live=snapshot"},
                   "--max-bandwidth: it has no effect with --live=snapshot, which QEMU sends as fast as it can");
  ExpectUsageError({"--max-bandwidth", "1M", "--from", "memory"},
                   "--max-bandwidth: it has no effect with --from memory, which QEMU takes no part in");
  for (const std::string bandwidth : {"4095", "1025G"}) {
    ExpectUsageError({"--max-bandwidth", bandwidth}, "--max-bandwidth: \"" + bandwidth +
                                                         "\" is not from 4K to 1T bytes per second (write it as 500M "
                                                         "or 2G; 0 is no limit)");
  }
}

TEST(SaveOptionsTest, HowOfLiveThatIsTakenForTheImageIsHintedAt) {
  ExpectUsageError({"--live", "snapshot"}, "unexpected argument: /nowhere/vm1.sav (did you mean --live=snapshot?)");
}

TEST(SaveOptionsTest, ValuesThatAreNoneAreRefused) {
  const std::vector<std::vector<std::string>> wrong{{"--live", "--downtime-limit", "0"},
                                                    {"--live", "--downtime-limit", "2000001"},
                                                    {"--live", "--timeout", "0"},
                                                    {"--live=postcopy"},
                                                    {"--from", "disk"},
                                                    {"--max-bandwidth", "fast"}};
  for (const std::vector<std::string>& options : wrong) {
    EXPECT_TRUE(Refused(RunWith(options), 2, "--help")) << testing::PrintToString(options);
  }
}

}  // namespace
}  // namespace vmsave
