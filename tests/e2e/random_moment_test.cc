// Signals to vmsave and deaths of QEMU at moments that nobody chose. How many for each way to save and each kind:
// VMSAVE_MOMENTS.
#include <fmt/format.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/faults.h"
#include "tests/e2e/ways_to_save.h"

namespace vmsave {
namespace {

using Microseconds = std::chrono::microseconds;

constexpr int kUsualMoments = 2;
constexpr int kMostMoments = 50;  // until one is in the middle of a save

int Moments() {
  const char* text = std::getenv("VMSAVE_MOMENTS");
  return text == nullptr ? kUsualMoments : std::atoi(text);
}

class RandomMomentTest : public EndToEndTest, public testing::WithParamInterface<WayToSave> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam().qemu;
    shape_.ram = GetParam().ram;
    shape_.memory_kib = 64 << 10;
    shape_.options = "fill=80 seed=7 tick=20 passes=4 dirty=40 rezero=20";
    guest_ = NewGuest();
    settings_ = MigrationSettingsOf(*guest_);
    time_of_a_save_ = TimeOfASave();
  }

  std::unique_ptr<Guest> NewGuest() const {
    auto guest = std::make_unique<Guest>(files_, "guest", shape_);
    std::filesystem::remove(guest->log_path());
    guest->Boot();
    return guest;
  }

  // The save, and what `strike` did to it at some moment, up to a little after its usual end.
  template <class Strike>
  Outcome SaveStruckBy(const Strike& strike) {
    const Microseconds moment(std::uniform_int_distribution<Microseconds::rep>(
        0, time_of_a_save_.count() + time_of_a_save_.count() / 10)(random_));
    moment_ = fmt::format("after {} of {} us", moment.count(), time_of_a_save_.count());
    ProgramRun save(Command());
    std::this_thread::sleep_for(moment);
    const bool is_in_the_middle = !FilesBesideImage().empty() && !std::filesystem::exists(ImagePath());
    strike(save);
    Outcome outcome = WaitForGuardToo(save, ImagePath());
    if (is_in_the_middle && outcome.status != 0) ++struck_in_the_middle_;
    return outcome;
  }

  // What has its name is whole; nothing else is there.
  bool TakeImage() const {
    const bool is_there = std::filesystem::exists(ImagePath());
    if (is_there) {
      EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    }
    std::filesystem::remove(ImagePath());
    EXPECT_EQ(FilesBesideImage(), std::vector<std::string>());
    return is_there;
  }

  void ExpectGuestAsBefore() const {
    ASSERT_EQ(guest_->Status(), "running");
    EXPECT_EQ(nlohmann::json::diff(settings_, MigrationSettingsOf(*guest_)), nlohmann::json::array());
  }

  // `attempt` as often as was asked for, and on until one has struck a save that had begun its file and not ended it.
  template <class Attempt>
  void TryMoments(const Attempt& attempt) {
    for (int i = 0; i < Moments() || (struck_in_the_middle_ == 0 && i < kMostMoments); ++i) {
      ASSERT_NO_FATAL_FAILURE(attempt());
    }
    EXPECT_GT(struck_in_the_middle_, 0);
  }

  void TrySignal(int signal, int status) {
    TryMoments([&] {
      const Outcome outcome = SaveStruckBy([signal](const ProgramRun& save) { save.Signal(signal); });
      SCOPED_TRACE(moment_ + ": " + outcome.err);

      const bool image_is_there = TakeImage();
      ASSERT_NO_FATAL_FAILURE(ExpectGuestAsBefore());
      if (outcome.status == 0) {
        EXPECT_TRUE(image_is_there);
      } else {
        EXPECT_TRUE(outcome.status == status || outcome.status == 128 + signal) << outcome.status;
      }
    });
    EXPECT_TRUE(GoesOn(*guest_));
  }

  GuestShape shape_;
  std::unique_ptr<Guest> guest_;
  std::string moment_;

 private:
  std::vector<std::string> Command() const {
    std::vector<std::string> arguments = GetParam().options;
    arguments.insert(arguments.end(), {"--parallel", "3", "--after", "resume", ImagePath()});
    return VmsaveCommand(*guest_, arguments);
  }

  Microseconds TimeOfASave() const {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(Succeeded(RunToEnd(Command())));
    EXPECT_TRUE(TakeImage());
    return std::chrono::duration_cast<Microseconds>(std::chrono::steady_clock::now() - start);
  }

  std::mt19937_64 random_{std::random_device()()};
  nlohmann::json settings_;
  Microseconds time_of_a_save_{};
  int struck_in_the_middle_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Ways, RandomMomentTest, testing::ValuesIn(WaysToSave(IsUsual)), NameOfWay);

TEST_P(RandomMomentTest, InterruptLeavesAllOrNothing) {
  TrySignal(SIGINT, 130);
}

TEST_P(RandomMomentTest, TerminationLeavesAllOrNothing) {
  TrySignal(SIGTERM, 130);
}

TEST_P(RandomMomentTest, KillLeavesAllOrNothing) {
  TrySignal(SIGKILL, 128 + SIGKILL);
}

TEST_P(RandomMomentTest, DeathOfQemuIsToldAndLeavesNothingHalf) {
  TryMoments([&] {
    guest_.reset();
    guest_ = NewGuest();
    const Outcome outcome = SaveStruckBy([this](const ProgramRun&) { guest_->Kill(); });
    SCOPED_TRACE(moment_ + ": " + outcome.err);

    // The memory of a QEMU that is gone can still be written where it is shared: the image is complete then, and told
    // of.
    const bool image_is_there = TakeImage();
    if (outcome.status == 0) {
      EXPECT_TRUE(image_is_there);
    } else {
      EXPECT_TRUE(Refused(outcome, 1, "vmsave: "));
      EXPECT_EQ(outcome.err.find("is complete") != std::string::npos, image_is_there);
    }
  });
}

}  // namespace
}  // namespace vmsave
