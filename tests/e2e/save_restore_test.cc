// The main job, in every combination: a guest is saved and goes on elsewhere, its memory intact.
#include <filesystem>
#include <ostream>
#include <span>
#include <tuple>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

constexpr unsigned k64MiB = 64 << 10;
// 64 MiB, 1 MiB and 8 KiB: no multiple of any unit that images are written in.
constexpr unsigned kOddSize = k64MiB + (1 << 10) + 8;

struct Journey {
  std::string name;
  GuestShape saved;
  GuestShape restored;
  std::vector<std::string> save_options;
  std::vector<std::string> restore_options;
  std::string via;
};

std::ostream& operator<<(std::ostream& out, const Journey& journey) {
  return out << journey.name;
}

class SaveRestoreTest : public EndToEndTest, public testing::WithParamInterface<Journey> {};

TEST_P(SaveRestoreTest, GuestGoesOnWithItsMemoryIntact) {
  const Journey& journey = GetParam();
  Guest saved(files_, "saved", journey.saved);
  Guest restored(files_, "restored", journey.restored);
  restored.PrintTo(saved);
  saved.Boot();

  ASSERT_TRUE(Succeeded(Save(saved, journey.save_options)));
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  WaitUntil("the end of the saved QEMU", [&] { return saved.Processes().empty(); });
  const Outcome restore = Restore(restored, journey.restore_options);

  ASSERT_TRUE(Succeeded(restore));
  EXPECT_NE(restore.err.find("via " + journey.via), std::string::npos) << restore.err;
  EXPECT_TRUE(GoesOn(restored));
}

constexpr WhichQemu kBoth[] = {WhichQemu::kOld, WhichQemu::kNew};

std::string Name(WhichQemu qemu) {
  return qemu == WhichQemu::kOld ? "Old" : "New";
}

GuestShape Shape(WhichQemu qemu, Ram ram, unsigned memory_kib = k64MiB) {
  GuestShape shape;
  shape.qemu = qemu;
  shape.ram = ram;
  shape.memory_kib = memory_kib;
  return shape;
}

Journey WithinMemory(const std::string& name, const GuestShape& shape, const std::string& version,
                     const std::vector<std::string>& more = {}) {
  Journey journey{name, shape, shape, {"--image-version", version}, {}, "memory"};
  journey.save_options.insert(journey.save_options.end(), more.begin(), more.end());
  journey.restore_options.insert(journey.restore_options.end(), more.begin(), more.end());
  return journey;
}

std::vector<Journey> EachKindOfRam() {
  const std::pair<Ram, std::string> kinds[] = {
      {Ram::kFile, "File"}, {Ram::kShm, "Shm"}, {Ram::kMemfd, "Memfd"}, {Ram::kTwoBlocks, "TwoBlocks"}};
  std::vector<Journey> journeys;
  for (const WhichQemu qemu : kBoth) {
    for (const auto& [ram, name] : kinds) {
      journeys.push_back(WithinMemory(name + "Version3" + Name(qemu), Shape(qemu, ram), "3"));
    }
    journeys.push_back(WithinMemory("FileVersion2" + Name(qemu), Shape(qemu, Ram::kFile), "2"));
    journeys.push_back(WithinMemory("TwoBlocksVersion2" + Name(qemu), Shape(qemu, Ram::kTwoBlocks), "2"));
    for (const std::string version : {"2", "3"}) {
      journeys.push_back(
          WithinMemory("OddSizeVersion" + version + Name(qemu), Shape(qemu, Ram::kFile, kOddSize), version));
    }
  }
  return journeys;
}

std::vector<Journey> EachEngineAndCacheUse() {
  std::vector<Journey> journeys;
  for (const std::string engine : {"uring", "sync"}) {
    for (const std::string version : {"2", "3"}) {
      const GuestShape shape = Shape(WhichQemu::kNew, Ram::kMemfd);
      const std::vector<std::string> options{"--io-engine", engine, "--parallel", "8"};
      std::vector<std::string> bypass = options;
      bypass.emplace_back("--bypass-cache");
      journeys.push_back(WithinMemory(engine + "PageCacheVersion" + version, shape, version, options));
      journeys.push_back(WithinMemory(engine + "BypassVersion" + version, shape, version, bypass));
    }
  }
  return journeys;
}

Journey Between(const std::string& name, const GuestShape& saved, const GuestShape& restored,
                const std::string& version, const std::string& via) {
  return {name, saved, restored, {"--image-version", version}, {"--via", via}, via};
}

std::vector<Journey> EachOtherWayIn() {
  const GuestShape new_shared = Shape(WhichQemu::kNew, Ram::kFile);
  const GuestShape new_private = Shape(WhichQemu::kNew, Ram::kPrivate);
  const GuestShape old_private = Shape(WhichQemu::kOld, Ram::kPrivate);
  const GuestShape new_two_blocks = Shape(WhichQemu::kNew, Ram::kTwoBlocks);
  const GuestShape old_two_blocks = Shape(WhichQemu::kOld, Ram::kTwoBlocks);
  GuestShape odd_private = Shape(WhichQemu::kNew, Ram::kPrivate, kOddSize);
  std::vector<Journey> journeys{
      Between("NativeIntoPrivate", new_shared, new_private, "3", "native"),
      Between("NativeIntoShared", new_shared, new_shared, "3", "native"),
      Between("NativeTwoBlocks", new_two_blocks, new_two_blocks, "3", "native"),
      Between("NativeOddSize", Shape(WhichQemu::kNew, Ram::kFile, kOddSize), odd_private, "3", "native"),
      Between("Version3AsStreamOddSize", Shape(WhichQemu::kNew, Ram::kFile, kOddSize), odd_private, "3", "stream"),
      Between("Version3AsStreamFromNewIntoOld", new_shared, old_private, "3", "stream"),
      Between("Version2AsStreamFromNewIntoOld", new_shared, old_private, "2", "stream"),
      Between("Version3FromOldIntoNewNative", Shape(WhichQemu::kOld, Ram::kFile), new_private, "3", "native"),
      Between("Version3FromNewIntoOldMemory", new_shared, Shape(WhichQemu::kOld, Ram::kFile), "3", "memory"),
      Between("Version2FromOldIntoNewMemory", Shape(WhichQemu::kOld, Ram::kFile), new_shared, "2", "memory"),
      Between("TwoBlocksAsStreamIntoOld", new_two_blocks, old_two_blocks, "3", "stream")};
  for (const WhichQemu qemu : kBoth) {
    for (const std::string version : {"2", "3"}) {
      journeys.push_back(Between("Version" + version + "AsStream" + Name(qemu), Shape(qemu, Ram::kFile),
                                 Shape(qemu, Ram::kPrivate), version, "stream"));
    }
  }
  Journey bypass = Between("NativeBypass", new_shared, new_private, "3", "native");
  bypass.restore_options.emplace_back("--bypass-cache");
  journeys.push_back(bypass);
  return journeys;
}

GuestShape NewestMachine(Ram ram) {
  GuestShape shape = Shape(WhichQemu::kNew, ram);
  shape.machine = "pc-i440fx-10.0";
  return shape;
}

Journey OverMultifd(const std::string& name, const GuestShape& saved, const GuestShape& restored,
                    const std::string& version, const std::string& channels) {
  return {name, saved, restored, {"--image-version", version}, {"--via", "multifd", "--parallel", channels}, "multifd"};
}

// With both QEMUs, and with machine types of both kinds of synchronisation.
std::vector<Journey> OverParallelChannels() {
  const std::tuple<std::string, GuestShape, GuestShape> guests[] = {
      {"Old", Shape(WhichQemu::kOld, Ram::kFile), Shape(WhichQemu::kOld, Ram::kPrivate)},
      {"New", Shape(WhichQemu::kNew, Ram::kFile), Shape(WhichQemu::kNew, Ram::kPrivate)},
      {"NewestMachine", NewestMachine(Ram::kFile), NewestMachine(Ram::kPrivate)},
      {"IntoOldsSharedMemory", Shape(WhichQemu::kNew, Ram::kFile), Shape(WhichQemu::kOld, Ram::kMemfd)},
      {"IntoNewestsSharedMemory", NewestMachine(Ram::kFile), NewestMachine(Ram::kMemfd)},
      {"OddSize", Shape(WhichQemu::kNew, Ram::kFile, kOddSize), Shape(WhichQemu::kNew, Ram::kPrivate, kOddSize)},
      {"TwoBlocks", Shape(WhichQemu::kNew, Ram::kTwoBlocks), Shape(WhichQemu::kOld, Ram::kTwoBlocks)}};
  std::vector<Journey> journeys;
  for (const auto& [name, saved, restored] : guests) {
    for (const std::string version : {"2", "3"}) {
      journeys.push_back(OverMultifd(name + "Version" + version, saved, restored, version, "4"));
    }
  }
  for (const auto& [name, saved, restored] : std::span(guests).first(3)) {
    journeys.push_back(OverMultifd(name + "OneChannel", saved, restored, "3", "1"));
  }
  Journey bypass =
      OverMultifd("Bypass", Shape(WhichQemu::kNew, Ram::kFile), Shape(WhichQemu::kNew, Ram::kPrivate), "3", "4");
  bypass.restore_options.emplace_back("--bypass-cache");
  journeys.push_back(bypass);
  return journeys;
}

std::vector<Journey> AutomaticWays() {
  Journey native = Between("NewPrivateTakesNative", Shape(WhichQemu::kNew, Ram::kFile),
                           Shape(WhichQemu::kNew, Ram::kPrivate), "3", "native");
  Journey stream = Between("OldPrivateTakesStream", Shape(WhichQemu::kNew, Ram::kFile),
                           Shape(WhichQemu::kOld, Ram::kPrivate), "3", "stream");
  Journey multifd = stream;
  multifd.name = "OldPrivateTakesMultifdWithMoreThanOneChannel";
  multifd.via = "multifd";
  Journey newest = WithinMemory("NewestMachineByItsAlias", Shape(WhichQemu::kNew, Ram::kFile), "3");
  newest.saved.machine = newest.restored.machine = "q35";
  Journey checked = native;
  checked.name = "NewPrivateTakesMultifdForItsChecksums";
  checked.via = "multifd";
  checked.restore_options = {"--parallel", "2"};
  native.restore_options = {"--verify", "full"};
  stream.restore_options = {"--parallel", "1"};
  multifd.restore_options = {"--parallel", "2"};
  return {native, checked, stream, multifd, newest};
}

std::string NameOf(const testing::TestParamInfo<Journey>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Ram, SaveRestoreTest, testing::ValuesIn(EachKindOfRam()), NameOf);
INSTANTIATE_TEST_SUITE_P(Engine, SaveRestoreTest, testing::ValuesIn(EachEngineAndCacheUse()), NameOf);
INSTANTIATE_TEST_SUITE_P(Way, SaveRestoreTest, testing::ValuesIn(EachOtherWayIn()), NameOf);
INSTANTIATE_TEST_SUITE_P(Multifd, SaveRestoreTest, testing::ValuesIn(OverParallelChannels()), NameOf);
INSTANTIATE_TEST_SUITE_P(Auto, SaveRestoreTest, testing::ValuesIn(AutomaticWays()), NameOf);

}  // namespace
}  // namespace vmsave
