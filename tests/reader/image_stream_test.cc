#include "reader/image_stream.h"

#include <gtest/gtest.h>

#include "reader/memory_loader.h"
#include "reader/multifd_sender.h"
#include "reader/stream_pages.h"
#include "tests/reader/image_copies.h"
#include "tests/reader/multifd_receiver.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

constexpr const char* kChanged = "its block list changed while it was read";

struct Other {
  std::string name;
  std::vector<SmallGuest::Shape> blocks;
};

const Other kOthers[] = {{"Lengths", {{"pc.ram", 19}, {"pc.bios", 11}}},
                         {"Names", {{"pc.rom", 20}, {"pc.bios", 10}}},
                         {"Fewer", {{"pc.ram", 60}}},
                         {"More", {{"pc.ram", 20}, {"pc.bios", 10}, {"vga.vram", 5}}}};

// A stream whose RAM blocks have become others since its image was opened. It is no shorter, so that it does not end
// early.
class ChangedStreamTest : public testing::TestWithParam<Other> {
 protected:
  ChangedStreamTest() { WriteWholeFile(path_, StreamOf(SmallGuest(GetParam().blocks))); }

  const Image& image() const { return image_; }
  Progress& progress() { return progress_; }

 private:
  Bytes StreamOf(const SmallGuest& guest) const {
    const std::string path = directory_.Path("other.sav");
    WriteCopy(path, guest, Copy::kVersion2);
    return ReadWholeFile(path);
  }

  std::string Write(const SmallGuest& guest) const {
    WriteWholeFile(path_, StreamOf(guest));
    return path_;
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  Image image_{Write(SmallGuest({{"pc.ram", 20}, {"pc.bios", 10}}))};
  Progress progress_;
};

TEST_P(ChangedStreamTest, IsNotLoaded) {
  Bytes ram(20 * kPageBytes);
  Bytes bios(10 * kPageBytes);
  const std::vector<LoadTarget> targets{{ram, nullptr, {}}, {bios, nullptr, {}}};
  ExpectDamaged([&] { LoadImage(image(), targets, {}, PageChecks::kOn, progress(), Interrupt()); }, kChanged);
}

TEST_P(ChangedStreamTest, IsNotSentOverMultifd) {
  MultifdCollector collector(1);
  const auto send = [&] {
    SendImageOverMultifd(image(), collector.receiver(SyncAtFor(QemuSyncs::kAtSections), {}), {}, PageChecks::kOn,
                         progress(), Interrupt());
  };
  ExpectDamaged(send, kChanged);
}

// A longer one ends early: the walk looks at the blocks when it is through.
TEST_P(ChangedStreamTest, IsNotWalked) {
  ExpectDamaged([&] { WalkStream(image(), {}, progress(), Interrupt()); }, image().path());
}

INSTANTIATE_TEST_SUITE_P(Others, ChangedStreamTest, testing::ValuesIn(kOthers),
                         [](const auto& shown) { return shown.param.name; });

}  // namespace
}  // namespace vmsave
