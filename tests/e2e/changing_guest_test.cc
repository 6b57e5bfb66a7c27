// A guest that changes its memory, taken from every source, standing still or not: the image is the guest of one
// moment, whichever way it is restored.
#include <fmt/format.h>

#include <ostream>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

// The machine types are of both kinds of multifd: zero pages in the main stream or in packets, a flush at the end of
// every section or of every round.
struct Host {
  std::string name;
  WhichQemu qemu;
  std::string machine;
};

const Host kOld{"Old", WhichQemu::kOld, "pc-i440fx-7.2"};
const Host kNew{"New", WhichQemu::kNew, "pc-i440fx-7.2"};
const Host kNewest{"NewestMachine", WhichQemu::kNew, "pc-i440fx-10.0"};

enum class Mode { kStopped, kPrecopy, kSnapshot };

struct Saving {
  std::string from;
  Host host;
  std::string version;
  Mode mode;
};

std::ostream& operator<<(std::ostream& out, const Saving& saving) {
  return out << "--from " << saving.from;
}

std::vector<std::string> OptionsOf(const Saving& saving) {
  std::vector<std::string> options{"--from", saving.from, "--image-version", saving.version, "--parallel", "4"};
  if (saving.mode == Mode::kStopped) return options;
  options.insert(options.end(), {"--after", "resume"});
  if (saving.mode == Mode::kSnapshot) {
    options.emplace_back("--live=snapshot");
  } else {
    // So that it takes many ticks, each of which changes pages that have been saved.
    options.insert(options.end(), {"--live", "--max-bandwidth", "100M"});
  }
  return options;
}

// Emulated by QEMU 7.2, a page that is written while QEMU looks for changed pages may not be sent again: its own
// migrations lose it too, one in twenty. Pages that are written all the time, as the stack, are safe.
bool LosesChangedPages(const Saving& saving) {
  return saving.mode == Mode::kPrecopy && saving.host.qemu == WhichQemu::kOld;
}

struct Restoring {
  std::string via;
  Host host;
};

std::vector<Restoring> EachWayToRestore(const Saving& saving) {
  std::vector<Host> hosts{saving.host};
  if (saving.host.machine == kOld.machine) hosts = {kOld, kNew};
  std::vector<Restoring> ways;
  for (const Host& host : hosts) {
    for (const char* via : {"memory", "multifd", "stream"}) ways.push_back({via, host});
    if (host.qemu == WhichQemu::kNew && saving.version == "3") ways.push_back({"native", host});
  }
  return ways;
}

class ChangingGuestTest : public EndToEndTest, public testing::WithParamInterface<Saving> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    const Ram ram = GetParam().from == "memory" ? Ram::kFile : Ram::kPrivate;
    saved_ = std::make_unique<Guest>(files_, "saved", ShapeOn(GetParam().host, ram));
    saved_->Boot();
  }

  void SaveIt() const {
    const Outcome save = Save(*saved_, OptionsOf(GetParam()));
    ASSERT_TRUE(Succeeded(save));
    EXPECT_NE(save.out.find(", from " + GetParam().from), std::string::npos) << save.out;
    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  }

  static GuestShape ShapeOn(const Host& host, Ram ram) {
    GuestShape shape;
    shape.qemu = host.qemu;
    shape.machine = host.machine;
    shape.ram = ram;
    shape.options = "fill=50 seed=7 tick=10 passes=4";
    if (!LosesChangedPages(GetParam())) shape.options += " dirty=40 rezero=20";
    return shape;
  }

  static std::unique_ptr<Guest> MakeTarget(const ScratchDirectory& directory, const Restoring& restoring) {
    const Ram ram = restoring.via == "memory" ? Ram::kFile : Ram::kPrivate;
    return std::make_unique<Guest>(directory, restoring.via + restoring.host.name, ShapeOn(restoring.host, ram));
  }

  std::unique_ptr<Guest> saved_;
};

class StoppedGuestTest : public ChangingGuestTest {};

TEST_P(StoppedGuestTest, GoesOnWithoutAGapWhicheverWayItIsRestored) {
  ASSERT_NO_FATAL_FAILURE(SaveIt());
  EXPECT_TRUE(saved_->Processes().empty());

  for (const Restoring& restoring : EachWayToRestore(GetParam())) {
    SCOPED_TRACE(restoring.host.name + " via " + restoring.via);
    const auto restored = MakeTarget(files_, restoring);
    restored->PrintToCopyOf(*saved_);
    ASSERT_TRUE(Succeeded(Restore(*restored, {"--via", restoring.via, "--parallel", "4"})));
    EXPECT_TRUE(GoesOn(*restored));
  }
}

class RunningGuestTest : public ChangingGuestTest {};

TEST_P(RunningGuestTest, GoesOnBesideItsImageAndWhicheverWayItIsRestored) {
  const unsigned before = saved_->console().LastTick();
  ASSERT_NO_FATAL_FAILURE(SaveIt());
  saved_->console().WaitForTicks(1);
  const unsigned after = saved_->console().LastTick();
  EXPECT_TRUE(GoesOn(*saved_));
  saved_->Kill();

  for (const Restoring& restoring : EachWayToRestore(GetParam())) {
    SCOPED_TRACE(restoring.host.name + " via " + restoring.via);
    const auto restored = MakeTarget(files_, restoring);
    ASSERT_TRUE(Succeeded(Restore(*restored, {"--via", restoring.via, "--parallel", "4"})));
    restored->console().WaitForTicks(1);
    const unsigned tick = restored->console().FirstTick();
    EXPECT_GT(tick, before);
    EXPECT_LE(tick, after + 1);  // the last may have been half printed when the image was taken
    EXPECT_TRUE(GoesOn(*restored, tick));
  }
}

std::string NameOf(const testing::TestParamInfo<Saving>& info) {
  const Saving& saving = info.param;
  std::string name = "From_" + saving.from + "_Version" + saving.version + "_" + saving.host.name;
  if (saving.mode != Mode::kStopped) name += saving.mode == Mode::kPrecopy ? "_Precopy" : "_Snapshot";
  return name;
}

// On each of `hosts`, in both versions where there are both.
void Add(std::vector<Saving>& savings, const std::string& from, const std::vector<Host>& hosts, Mode mode) {
  for (const Host& host : hosts) {
    if (from != "qemu") savings.push_back({from, host, "2", mode});
    savings.push_back({from, host, "3", mode});
  }
}

std::vector<Saving> Stopped() {
  std::vector<Saving> savings;
  Add(savings, "memory", {kOld, kNew}, Mode::kStopped);
  Add(savings, "qemu", {kNew, kNewest}, Mode::kStopped);
  Add(savings, "multifd", {kOld, kNew, kNewest}, Mode::kStopped);
  Add(savings, "stream", {kOld, kNew, kNewest}, Mode::kStopped);
  return savings;
}

std::vector<Saving> Running() {
  std::vector<Saving> savings;
  Add(savings, "qemu", {kNew, kNewest}, Mode::kPrecopy);
  Add(savings, "multifd", {kOld, kNew, kNewest}, Mode::kPrecopy);
  Add(savings, "stream", {kOld, kNew, kNewest}, Mode::kPrecopy);
  Add(savings, "stream", {kOld, kNew, kNewest}, Mode::kSnapshot);
  return savings;
}

INSTANTIATE_TEST_SUITE_P(Saves, StoppedGuestTest, testing::ValuesIn(Stopped()), NameOf);
INSTANTIATE_TEST_SUITE_P(Saves, RunningGuestTest, testing::ValuesIn(Running()), NameOf);

}  // namespace
}  // namespace vmsave
