// What becomes of the guest once its image is complete.
#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

class AfterSaveTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    guest_ = std::make_unique<Guest>(files_, "saved", shape_);
    guest_->Boot();
  }

  GuestShape shape_;
  std::unique_ptr<Guest> guest_;
};

INSTANTIATE_TEST_SUITE_P(Both, AfterSaveTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(AfterSaveTest, QemuHasEndedWhenVmsaveReturns) {
  ASSERT_TRUE(Succeeded(Save(*guest_)));

  // Its locks on disk images would be in the way of a restore.
  EXPECT_TRUE(guest_->Processes().empty());
}

TEST_P(AfterSaveTest, ResumedGuestGoesOn) {
  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "resume"})));

  EXPECT_EQ(guest_->Status(), "running");
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(AfterSaveTest, PausedGuestStandsStillUntilItIsContinued) {
  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "pause"})));

  EXPECT_TRUE(StandsStill(*guest_));
  guest_->Connect()->Execute("cont");
  EXPECT_TRUE(GoesOn(*guest_));
}

TEST_P(AfterSaveTest, MigrationSettingsAreAsTheyWere) {
  {
    const std::unique_ptr<QmpClient> qmp = guest_->Connect();
    qmp->Execute("migrate-set-parameters", {{"max-bandwidth", 12345678}});
    qmp->Execute("migrate-set-capabilities", {{"capabilities", {{{"capability", "auto-converge"}, {"state", true}}}}});
  }
  const nlohmann::json before = MigrationSettingsOf(*guest_);

  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "resume"})));

  EXPECT_EQ(nlohmann::json::diff(before, MigrationSettingsOf(*guest_)), nlohmann::json::array());
}

TEST_P(AfterSaveTest, ResumedGuestCanBeSavedAgain) {
  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "resume", "--image-version", "3"})));
  ASSERT_TRUE(GoesOn(*guest_));
  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "quit", "--image-version", "3", "--force"})));
  Guest restored(files_, "restored", shape_);
  restored.PrintTo(*guest_);

  ASSERT_TRUE(Succeeded(Restore(restored)));

  EXPECT_TRUE(GoesOn(restored));
}

TEST_P(AfterSaveTest, ImageIsOfTheMomentOfTheSaveAndNotChangedByTheGuestGoingOn) {
  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "resume", "--image-version", "3"})));
  ASSERT_TRUE(GoesOn(*guest_));
  guest_->Kill();
  Guest first(files_, "first", shape_);
  Guest second(files_, "second", shape_);

  ASSERT_TRUE(Succeeded(Restore(first)));
  first.console().WaitForWholePass();
  ASSERT_TRUE(Succeeded(Restore(second)));
  second.console().WaitForWholePass();

  const auto first_line = [](const Guest& guest) {
    const std::string text = guest.console().Text();
    return text.substr(0, text.find('\n'));
  };
  EXPECT_EQ(first_line(first), first_line(second));
  EXPECT_EQ(first.console().Text().find("corrupt"), std::string::npos);
}

TEST_P(AfterSaveTest, GuestThatWasPausedIsNotResumed) {
  guest_->Connect()->Execute("stop");

  ASSERT_TRUE(Succeeded(Save(*guest_, {"--after", "resume"})));

  EXPECT_TRUE(StandsStill(*guest_));
}

}  // namespace
}  // namespace vmsave
