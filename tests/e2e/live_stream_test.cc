// What QEMU itself writes of a guest that runs: a stream in which pages come again, changed.
#include "reader/file_source.h"
#include "reader/image.h"
#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

// Counts the pages that come again.
class RepeatCounter : public PageSink {
 public:
  void OnBlocks(const StreamContents& contents) override {
    for (const StreamBlock& block : contents.blocks) seen_.emplace_back(block.pages());
  }
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    Count(block, page);
    return {};
  }
  void OnZeroPage(std::size_t block, PageIndex page) override { Count(block, page); }

  std::uint64_t repeats() const { return repeats_; }

 private:
  void Count(std::size_t block, PageIndex page) {
    if (seen_[block].Test(page.value())) ++repeats_;
    seen_[block].Set(page.value());
  }
  std::vector<PageBitmap> seen_;
  std::uint64_t repeats_ = 0;
};

std::uint64_t CountRepeats(const std::string& path) {
  const Image image(path);
  FileSource source(image.file(), image.stream_start(), image.stream_end());
  RepeatCounter counter;
  ReadStreamUpToDevices(source, counter);
  return counter.repeats();
}

// The machine types are of both kinds of synchronisation.
struct Machine {
  WhichQemu qemu;
  std::string type;
};

class LiveStreamTest : public EndToEndTest, public testing::WithParamInterface<Machine> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    shape_.qemu = GetParam().qemu;
    shape_.machine = GetParam().type;
    shape_.ram = Ram::kPrivate;
    shape_.options = "fill=50 seed=7 tick=20 passes=4 dirty=200 rezero=50";
  }

  void SaveWhileItRuns(const Guest& guest) const {
    const auto qmp = guest.Connect();
    qmp->Execute("migrate", {{"uri", "exec:cat > " + ImagePath()}});
    WaitUntil("the end of QEMU's migration",
              [&] { return qmp->Execute("query-migrate").value("status", "") == "completed"; });
  }

  GuestShape shape_;
};

std::ostream& operator<<(std::ostream& out, const Machine& machine) {
  return out << machine.type;
}

INSTANTIATE_TEST_SUITE_P(Machines, LiveStreamTest,
                         testing::Values(Machine{WhichQemu::kOld, "pc-i440fx-7.2"},
                                         Machine{WhichQemu::kNew, "pc-i440fx-7.2"},
                                         Machine{WhichQemu::kNew, "pc-i440fx-10.0"}),
                         [](const auto& shown) {
                           if (shown.param.qemu == WhichQemu::kOld) return "Old";
                           return shown.param.type == "pc-i440fx-7.2" ? "NewWithOldMachine" : "New";
                         });

TEST_P(LiveStreamTest, GoesOverParallelChannelsWithEachPageAsItCameLast) {
  GuestShape of_saved = shape_;
  of_saved.qemu = WhichQemu::kNew;  // QEMU 7.2 under TCG itself loses pages that change meanwhile
  Guest saved(files_, "saved", of_saved);
  Guest restored(files_, "restored", shape_);
  restored.PrintTo(saved);
  saved.Boot();
  SaveWhileItRuns(saved);
  saved.Kill();
  ASSERT_GT(CountRepeats(ImagePath()), 0U);

  ASSERT_TRUE(Succeeded(Restore(restored, {"--via", "multifd", "--parallel", "4"})));

  EXPECT_TRUE(GoesOn(restored));
}

}  // namespace
}  // namespace vmsave
