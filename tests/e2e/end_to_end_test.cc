#include "tests/e2e/end_to_end_test.h"

#include <signal.h>

#include <filesystem>
#include <fstream>

namespace vmsave {
namespace {

// Ten ticks of the test guest: one that runs would tick, unless the machine is very busy, and then nothing is lost.
constexpr std::chrono::milliseconds kTimeOfSomeTicks{200};

std::string WhatWasPrinted(const Outcome& outcome) {
  return "status " + std::to_string(outcome.status) + "\nstdout: " + outcome.out + "\nstderr: " + outcome.err;
}

}  // namespace

std::vector<std::string> EndToEndTest::FilesBesideImage() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(images_.path())) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

std::vector<std::string> EndToEndTest::VmsaveCommand(const Guest& guest, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{VMSAVE_PROGRAM, "--qmp", guest.qmp_path()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

std::vector<std::string> EndToEndTest::VmrestoreCommand(const Guest& guest, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{VMRESTORE_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.emplace_back("--");
  const std::vector<std::string> qemu = guest.Command();
  command.insert(command.end(), qemu.begin(), qemu.end());
  return command;
}

Outcome EndToEndTest::Save(const Guest& guest, const std::vector<std::string>& options) const {
  std::vector<std::string> arguments = options;
  arguments.push_back(ImagePath());
  return RunToEnd(VmsaveCommand(guest, arguments));
}

Outcome EndToEndTest::Restore(const Guest& guest, const std::vector<std::string>& options) const {
  std::vector<std::string> arguments{"--detach"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  arguments.push_back(ImagePath());
  return RunToEnd(VmrestoreCommand(guest, arguments));
}

void EndToEndTest::ExpectWholeOrInterrupted(const Outcome& save) const {
  if (save.status == 0) {
    EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
    std::filesystem::remove(ImagePath());
  }
  EXPECT_TRUE(save.status == 0 || save.status == 130 || save.status == 128 + SIGINT)
      << "status " << save.status << ": " << save.err;
}

testing::AssertionResult Succeeded(const Outcome& outcome) {
  if (outcome.status == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure() << WhatWasPrinted(outcome);
}

testing::AssertionResult Refused(const Outcome& outcome, int status, const std::string& what) {
  if (outcome.status != status) {
    return testing::AssertionFailure() << "expected status " << status << ", got " << WhatWasPrinted(outcome);
  }
  if (outcome.err.find(what) == std::string::npos) {
    return testing::AssertionFailure() << "the message does not say \"" << what << "\": " << WhatWasPrinted(outcome);
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult GoesOn(const Guest& guest, unsigned first_tick) {
  try {
    guest.console().WaitForWholePass();
  } catch (const std::runtime_error& error) {
    return testing::AssertionFailure() << error.what();
  }
  const std::string flaw = guest.console().FirstFlaw(first_tick);
  if (flaw.empty()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "the guest printed: " << flaw;
}

testing::AssertionResult StandsStill(const Guest& guest) {
  const unsigned tick = guest.console().LastTick();
  std::this_thread::sleep_for(kTimeOfSomeTicks);
  if (guest.console().LastTick() == tick) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "the guest runs: it is at tick " << guest.console().LastTick();
}

nlohmann::json InfoOf(const std::string& image) {
  const Outcome info = RunToEnd({VMIMAGE_PROGRAM, "info", "--json", image});
  EXPECT_TRUE(Succeeded(info));
  return nlohmann::json::parse(info.out);
}

nlohmann::json MigrationSettingsOf(const Guest& guest) {
  const std::unique_ptr<QmpClient> qmp = guest.Connect();
  return {{"capabilities", qmp->Execute("query-migrate-capabilities")},
          {"parameters", qmp->Execute("query-migrate-parameters")},
          {"descriptors", qmp->Execute("query-fdsets")}};
}

std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::string text(file ? static_cast<std::size_t>(file.tellg()) : 0, '\0');
  file.seekg(0).read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

void WriteWholeFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace vmsave
