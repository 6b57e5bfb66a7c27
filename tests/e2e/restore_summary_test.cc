// What vmrestore tells at its end.
#include <nlohmann/json.hpp>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

class RestoreSummaryTest : public EndToEndTest {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    saved_ = std::make_unique<Guest>(files_, "saved", GuestShape{});
    saved_->Boot();
  }

  std::uint64_t PresentBytesOfImage() const {
    const nlohmann::json info = InfoOf(ImagePath());
    std::uint64_t pages = 0;
    for (const nlohmann::json& block : info.at("blocks")) {
      pages += block.at("pages_present").get<std::uint64_t>();
    }
    return pages * 4096;
  }

  nlohmann::json TotalsOfRestore(const std::string& way, Ram ram) const {
    GuestShape shape;
    shape.ram = ram;
    const Guest restored(files_, "restored-" + way, shape);
    const Outcome restore = Restore(restored, {"--via", way, "--progress", "json"});
    EXPECT_TRUE(Succeeded(restore));
    const std::size_t last_line = restore.out.rfind('\n', restore.out.size() - 2);
    return nlohmann::json::parse(restore.out.substr(last_line + 1)).at("completed");
  }

  void ExpectPresentTold(const std::string& way, Ram ram) const {
    EXPECT_EQ(TotalsOfRestore(way, ram).at("present_bytes"), PresentBytesOfImage()) << way;
  }

  std::unique_ptr<Guest> saved_;
};

TEST_F(RestoreSummaryTest, TellsHowMuchIsPresentInFixedOffsets) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));

  ExpectPresentTold("memory", Ram::kFile);
  ExpectPresentTold("native", Ram::kPrivate);
  ExpectPresentTold("multifd", Ram::kPrivate);
  ExpectPresentTold("stream", Ram::kPrivate);
}

TEST_F(RestoreSummaryTest, TellsHowMuchIsPresentInAStreamThatItLooksInto) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "2"})));

  ExpectPresentTold("memory", Ram::kFile);
  ExpectPresentTold("multifd", Ram::kPrivate);
}

TEST_F(RestoreSummaryTest, ClaimsNothingAboutAStreamThatGoesAsItIs) {
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "2"})));

  EXPECT_TRUE(TotalsOfRestore("stream", Ram::kPrivate).at("present_bytes").is_null());
}

}  // namespace
}  // namespace vmsave
