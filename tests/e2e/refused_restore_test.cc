// Restores that cannot work: refused before QEMU is started where the command tells.
#include <algorithm>
#include <filesystem>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

class RefusedRestoreTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    if (IsSkipped()) return;
    shape_.qemu = GetParam();
    Guest saved(files_, "saved", shape_);
    saved.Boot();
    ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "3"})));
    before_ = ReadWholeFile(ImagePath());
  }

  void ExpectRefusedUnstarted(const GuestShape& shape, int status, const std::string& what) const {
    const Guest restored(files_, "restored", shape);
    EXPECT_TRUE(Refused(Restore(restored), status, what));
    EXPECT_FALSE(std::filesystem::exists(restored.ram_path())) << "QEMU was started";
    EXPECT_TRUE(restored.Processes().empty());
  }

  void ExpectRefusedBy(Guest& waiting, int status, const std::string& what) const {
    waiting.Start({"-incoming", "defer"});
    EXPECT_TRUE(Refused(RunToEnd({VMRESTORE_PROGRAM, "--qmp", waiting.qmp_path(), ImagePath()}), status, what));
    EXPECT_EQ(waiting.Status(), "inmigrate");
    EXPECT_TRUE(ReadWholeFile(ImagePath()) == before_);
  }

  GuestShape shape_;
  std::string before_;
};

INSTANTIATE_TEST_SUITE_P(Both, RefusedRestoreTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(RefusedRestoreTest, AnotherMachineTypeInTheCommand) {
  shape_.machine = "pc-q35-7.2";
  ExpectRefusedUnstarted(shape_, 1, "pc-q35-7.2");
}

TEST_P(RefusedRestoreTest, AnotherRamSizeInTheCommand) {
  shape_.memory_kib = 128 << 10;
  ExpectRefusedUnstarted(shape_, 1, "128 MiB");
}

TEST_P(RefusedRestoreTest, AnotherMachineTypeOfAWaitingQemu) {
  shape_.machine = "pc-q35-7.2";
  Guest waiting(files_, "waiting", shape_);
  ExpectRefusedBy(waiting, 1, "pc-q35-7.2");
}

TEST_P(RefusedRestoreTest, AnotherRamSizeOfAWaitingQemu) {
  shape_.memory_kib = 128 << 10;
  Guest waiting(files_, "waiting", shape_);
  ExpectRefusedBy(waiting, 1, "128 MiB");
}

TEST_P(RefusedRestoreTest, MachineTypeByAnAliasIsCheckedOnceQemuTellsIt) {
  shape_.machine = "q35";
  const Guest restored(files_, "restored", shape_);

  EXPECT_TRUE(Refused(Restore(restored), 1, "pc-q35-"));

  EXPECT_TRUE(restored.Processes().empty());
}

TEST_P(RefusedRestoreTest, PrivateRamCannotBeRestoredIntoDirectly) {
  shape_.ram = Ram::kPrivate;
  const Guest restored(files_, "restored", shape_);

  EXPECT_TRUE(Refused(Restore(restored, {"--via", "memory"}), 1, "--via memory"));

  EXPECT_TRUE(restored.Processes().empty());
}

TEST_P(RefusedRestoreTest, BackendsOfOtherNames) {
  shape_.ram = Ram::kTwoBlocks;
  const Guest restored(files_, "restored", shape_);

  EXPECT_TRUE(Refused(Restore(restored), 1, "has no RAM block"));

  EXPECT_TRUE(restored.Processes().empty());
}

TEST_P(RefusedRestoreTest, DeviceThatTheSavedGuestHadIsMissing) {
  const Guest restored(files_, "restored", shape_);
  std::vector<std::string> command = VmrestoreCommand(restored, {"--detach", ImagePath()});
  const auto serial = std::find(command.begin(), command.end(), "-serial");
  ASSERT_NE(serial, command.end());
  command.erase(serial, serial + 2);

  EXPECT_TRUE(Refused(RunToEnd(command), 1, "Unknown savevm section"));

  EXPECT_TRUE(restored.Processes().empty());
  EXPECT_TRUE(ReadWholeFile(ImagePath()) == before_);
}

TEST_P(RefusedRestoreTest, CommandThatSaysIncomingItself) {
  const Guest restored(files_, "restored", shape_);
  std::vector<std::string> command = VmrestoreCommand(restored, {ImagePath()});
  command.insert(command.end(), {"-incoming", "defer"});

  EXPECT_TRUE(Refused(RunToEnd(command), 2, "-incoming"));

  EXPECT_FALSE(std::filesystem::exists(restored.ram_path())) << "QEMU was started";
}

class NativeRestoreTest : public EndToEndTest {};

TEST_F(NativeRestoreTest, IsRefusedWhereQemuIsTooOld) {
  GuestShape shape;
  shape.qemu = WhichQemu::kOld;
  Guest saved(files_, "saved", shape);
  const Guest restored(files_, "restored", shape);
  saved.Boot();
  ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "3"})));

  EXPECT_TRUE(Refused(Restore(restored, {"--via", "native"}), 1, "7.2"));

  EXPECT_TRUE(restored.Processes().empty());
}

TEST_F(NativeRestoreTest, IsRefusedForASequentialStream) {
  Guest saved(files_, "saved", GuestShape{});
  const Guest restored(files_, "restored", GuestShape{});
  saved.Boot();
  ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "2"})));

  EXPECT_TRUE(Refused(Restore(restored, {"--via", "native"}), 1, "sequential"));

  EXPECT_TRUE(restored.Processes().empty());
}

}  // namespace
}  // namespace vmsave
