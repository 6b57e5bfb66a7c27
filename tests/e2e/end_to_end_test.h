// What all end-to-end tests have in common: a directory, the programs, and how their outcome is judged.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "tests/e2e/guest.h"

namespace vmsave {

inline constexpr const char* kNoQemu = "VMSAVE_QEMU_OLD and VMSAVE_QEMU_NEW do not name both QEMUs";

class EndToEndTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!QemuPath(WhichQemu::kOld) || !QemuPath(WhichQemu::kNew)) GTEST_SKIP() << kNoQemu;
  }

  // The directory that images go into; nothing else is in it.
  std::string ImagePath(const std::string& name = "vm1.sav") const { return images_.Path(name); }
  std::vector<std::string> FilesBesideImage() const;

  static std::vector<std::string> VmsaveCommand(const Guest& guest, const std::vector<std::string>& arguments);
  static std::vector<std::string> VmrestoreCommand(const Guest& guest, const std::vector<std::string>& arguments);

  // A save of `guest` into ImagePath(), with `options`.
  Outcome Save(const Guest& guest, const std::vector<std::string>& options = {}) const;
  // A restore of ImagePath() into the QEMU of guest.Command(), which stays when vmrestore returns.
  Outcome Restore(const Guest& guest, const std::vector<std::string>& options = {}) const;

  // Of a save into ImagePath() that was sent SIGINT at any moment: the image is whole, and is removed; or the save was
  // interrupted.
  void ExpectWholeOrInterrupted(const Outcome& save) const;

  ScratchDirectory files_;
  ScratchDirectory images_;
};

inline std::ostream& operator<<(std::ostream& out, WhichQemu which) {
  return out << (which == WhichQemu::kOld ? "old QEMU" : "new QEMU");
}

// For behaviour that QEMU has a part in, so that it is seen with both.
class EachQemuTest : public EndToEndTest, public testing::WithParamInterface<WhichQemu> {};

inline std::string NameOfQemu(const testing::TestParamInfo<WhichQemu>& info) {
  return info.param == WhichQemu::kOld ? "OldQemu" : "NewQemu";
}

// The program ended with status 0.
testing::AssertionResult Succeeded(const Outcome& outcome);

// The program ended with `status` and its message names `what`.
testing::AssertionResult Refused(const Outcome& outcome, int status, const std::string& what);

// The guest ticks on, finds all of its memory right, and has never missed or repeated a tick since `first_tick`, the
// first in its log.
testing::AssertionResult GoesOn(const Guest& guest, unsigned first_tick = 1);

// The guest prints nothing for the time of some ticks.
testing::AssertionResult StandsStill(const Guest& guest);

// What `vmimage info` tells scripts of a sound image.
nlohmann::json InfoOf(const std::string& image);

// What QEMU is set to for migrations, and what it was given for them: a save leaves no trace in it.
nlohmann::json MigrationSettingsOf(const Guest& guest);

std::string ReadWholeFile(const std::string& path);
void WriteWholeFile(const std::string& path, const std::string& text);

}  // namespace vmsave
