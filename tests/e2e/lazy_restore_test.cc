// A guest that runs before its memory is read.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <climits>
#include <filesystem>
#include <fstream>

#include "reader/image.h"
#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

// So slow that the guest asks for nearly all it touches.
constexpr const char* kSlowly = "1M";

class LazyRestoreTest : public EachQemuTest {
 protected:
  void SetUp() override {
    EachQemuTest::SetUp();
    shape_.qemu = GetParam();
    shape_.ram = Ram::kPrivate;
    shape_.options = "fill=60 seed=7 tick=20 passes=4 dirty=40 rezero=20";
  }

  void SaveGuest(const std::vector<std::string>& options = {"--image-version", "3"}) {
    saved_ = std::make_unique<Guest>(files_, "saved", shape_);
    restored_ = std::make_unique<Guest>(files_, "restored", shape_);
    restored_->PrintTo(*saved_);
    saved_->Boot();
    ASSERT_TRUE(Succeeded(Save(*saved_, options)));
    saved_->Kill();
  }

  // Stays until QEMU ends, which has a QMP socket for the test.
  std::unique_ptr<ProgramRun> Begin(const std::vector<std::string>& options) const {
    std::vector<std::string> arguments{"--lazy"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    arguments.push_back(ImagePath());
    std::vector<std::string> command = VmrestoreCommand(*restored_, arguments);
    command.insert(command.end(), {"-qmp", "unix:" + restored_->qmp_path() + ",server=on,wait=off"});
    return std::make_unique<ProgramRun>(command);
  }

  std::unique_ptr<ProgramRun> BeginAndAwaitStart(const std::vector<std::string>& options) const {
    auto restore = Begin(options);
    WaitUntil("the guest's start", [&] {
      if (restore->Ended()) throw std::runtime_error("vmrestore ended: " + restore->err());
      return restore->err().find("its memory comes behind it") != std::string::npos;
    });
    return restore;
  }

  static void AwaitAll(ProgramRun& restore) {
    WaitUntil("all memory", [&] {
      if (restore.Ended()) throw std::runtime_error("vmrestore ended: " + restore.err());
      return restore.err().find("all there") != std::string::npos;
    });
  }

  Outcome Quit(ProgramRun& restore) const {
    try {
      restored_->Connect()->Execute("quit");
    } catch (const Error&) {
      // it went before it could answer
    }
    return restore.Wait();
  }

  // What vmrestore says to type.
  static std::string QmpSocketIn(const std::string& message) {
    const std::size_t option = message.find("--qmp ");
    if (option == std::string::npos) throw std::runtime_error(message);
    const std::size_t start = option + std::string_view("--qmp ").size();
    return message.substr(start, message.find(' ', start) - start);
  }

  // With this test's image.
  std::vector<pid_t> ProgramsInBackground() const {
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::ifstream name(entry.path() / "comm");
      std::string text;
      if (!std::getline(name, text) || text != "vmrestore") continue;
      std::ifstream arguments(entry.path() / "cmdline");
      for (std::string word; std::getline(arguments, word, '\0');) {
        if (word == ImagePath()) found.push_back(std::stoi(entry.path().filename()));
      }
    }
    return found;
  }

  void FlipByteOfPage(std::uint64_t page) const {
    const Image image(ImagePath());
    const StreamBlock& block = image.contents().blocks.front();
    const auto at = static_cast<std::streamoff>(block.mapped_ram->pages_offset.value() + page * kPageBytes + 100);
    std::fstream file(ImagePath(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const auto byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(at);
    file.put(byte);
  }

  GuestShape shape_;
  std::unique_ptr<Guest> saved_;
  std::unique_ptr<Guest> restored_;
};

INSTANTIATE_TEST_SUITE_P(Both, LazyRestoreTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(LazyRestoreTest, GuestThatWritesMeanwhileLosesNothing) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill-rate", "30M"});
  EXPECT_TRUE(GoesOn(*restored_));
  AwaitAll(*restore);
  EXPECT_TRUE(GoesOn(*restored_));
  EXPECT_EQ(restored_->Connect()->Execute("query-migrate").at("status"), "completed");
  EXPECT_TRUE(Succeeded(Quit(*restore)));
}

class LazyRamTest : public LazyRestoreTest {
 protected:
  void TestRam(Ram ram) {
    shape_.ram = ram;
    if (const std::string why = WhyNotHere(ram, shape_.memory_kib); !why.empty()) GTEST_SKIP() << why;
    ASSERT_NO_FATAL_FAILURE(SaveGuest());
    const auto restore = BeginAndAwaitStart({});
    AwaitAll(*restore);
    EXPECT_TRUE(GoesOn(*restored_));
    EXPECT_TRUE(Succeeded(Quit(*restore)));
  }
};
INSTANTIATE_TEST_SUITE_P(Both, LazyRamTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(LazyRamTest, InSharedMemoryIsServed) {
  TestRam(Ram::kShm);
}

TEST_P(LazyRamTest, WithoutANameIsServed) {
  TestRam(Ram::kMemfd);
}

TEST_P(LazyRamTest, OfTwoBlocksIsServed) {
  TestRam(Ram::kTwoMemfds);
}

TEST_P(LazyRamTest, InHugePagesIsServed) {
  TestRam(Ram::kHugePages);
}

TEST_P(LazyRestoreTest, LibvirtsSparseImagesAreServed) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "convert", "--in-place", "--to", "libvirt-sparse", ImagePath()})));
  const auto restore = BeginAndAwaitStart({});
  AwaitAll(*restore);
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, WithoutFillingTheGuestIsServedForAsLongAsItLives) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill", "off"});
  EXPECT_TRUE(GoesOn(*restored_));
  const Outcome outcome = Quit(*restore);
  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find(" 0 bytes filled"), std::string::npos) << outcome.err;
}

TEST_P(LazyRestoreTest, DetachedItReturnsOnceTheGuestRunsAndServesItOn) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const Outcome outcome = Restore(*restored_, {"--lazy", "--fill-rate", "8M"});
  ASSERT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("its memory comes behind it"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.err.find("all there"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, PausedGuestStaysPaused) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest({"--image-version", "3", "--paused"}));
  const auto restore = BeginAndAwaitStart({});
  AwaitAll(*restore);
  EXPECT_EQ(restored_->Status(), "paused");
  EXPECT_TRUE(StandsStill(*restored_));
  restored_->Connect()->Execute("cont");
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, QemuThatWaitsAlreadyIsServedToo) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  restored_->Start({"-incoming", "defer"});
  ASSERT_TRUE(Succeeded(RunToEnd({VMRESTORE_PROGRAM, "--lazy", "--qmp", restored_->qmp_path(), ImagePath()})));
  EXPECT_TRUE(GoesOn(*restored_));
  for (const auto& entry : MigrationSettingsOf(*restored_).at("capabilities")) EXPECT_EQ(entry.at("state"), false);
}

TEST_P(LazyRestoreTest, GuestThatIsResetMeanwhileStartsAnew) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill-rate", "8M"});
  restored_->Connect()->Execute("system_reset");
  const auto banners = [this] {
    const std::string log = restored_->console().Text();
    const std::string banner = "vmsave test guest";
    return log.find(banner, log.find(banner) + 1) != std::string::npos;
  };
  WaitUntil("the guest's new start", banners);
  AwaitAll(*restore);
  restored_->console().WaitForWholePass();
  const std::string log = restored_->console().Text();
  EXPECT_EQ(log.find("corrupt"), std::string::npos);
  EXPECT_EQ(log.find("stale"), std::string::npos);
}

TEST_P(LazyRestoreTest, QemuThatQuitsMeanwhileIsNoFailure) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill-rate", kSlowly});
  const Outcome outcome = Quit(*restore);
  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("the guest ended after"), std::string::npos) << outcome.err;
}

TEST_P(LazyRestoreTest, SignalEndsQemuThatItHasStarted) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill-rate", kSlowly});
  restore->Signal(SIGTERM);
  const Outcome outcome = restore->Wait();
  EXPECT_NE(outcome.err.find("the guest ended after"), std::string::npos) << outcome.err;
  WaitUntil("QEMU's end", [this] { return restored_->Processes().empty(); });
}

// A terminal that closes, or a session that ends with vmrestore, ends its QEMU only by what vmrestore passes on.
TEST_P(LazyRestoreTest, QemuThatItHasStartedHasASessionOfItsOwnAndGetsCtrlC) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill-rate", kSlowly});
  ASSERT_FALSE(restored_->Processes().empty());
  for (const pid_t process : restored_->Processes()) EXPECT_NE(::getsid(process), ::getsid(restore->pid()));
  restore->Signal(SIGINT);
  EXPECT_NE(restore->Wait().err.find("the guest ended after"), std::string::npos) << restore->err();
  WaitUntil("QEMU's end", [this] { return restored_->Processes().empty(); });
}

TEST_P(LazyRestoreTest, SignalToOneInTheBackgroundDoesNotEndTheGuest) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  ASSERT_TRUE(Succeeded(Restore(*restored_, {"--lazy", "--fill-rate", "30M"})));
  const std::vector<pid_t> programs = ProgramsInBackground();
  ASSERT_EQ(programs.size(), 1U);
  ::kill(programs.front(), SIGTERM);
  EXPECT_TRUE(GoesOn(*restored_));
  WaitUntil("all memory", [this] { return ProgramsInBackground().empty(); });
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, QemuThatDoesNotLetTheGuestRunIsEnded) {
  const std::string disk = files_.Path("disk.img");
  WriteWholeFile(disk, std::string(1 << 20, 'd'));
  const std::vector<std::string> drive{"-drive", "if=virtio,format=raw,file=" + disk};
  saved_ = std::make_unique<Guest>(files_, "saved", shape_);
  restored_ = std::make_unique<Guest>(files_, "restored", shape_);
  saved_->Boot(drive);
  ASSERT_TRUE(Succeeded(Save(*saved_, {"--image-version", "3"})));
  saved_->Kill();
  Guest holder(files_, "holder", shape_);
  holder.Start(drive);

  std::vector<std::string> command = VmrestoreCommand(*restored_, {"--lazy", ImagePath()});
  command.insert(command.end(), drive.begin(), drive.end());
  EXPECT_TRUE(Refused(RunToEnd(command), 1, "lock"));

  WaitUntil("QEMU's end", [this] { return restored_->Processes().empty(); });
}

TEST_P(LazyRestoreTest, ImageWhoseWorkingSetCanHaveNoNameIsRestoredAllTheSame) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const std::string path = ImagePath(std::string(NAME_MAX, 'n'));
  std::filesystem::rename(ImagePath(), path);
  restored_->Start({"-incoming", "defer"});
  EXPECT_TRUE(Succeeded(RunToEnd({VMRESTORE_PROGRAM, "--lazy", "--qmp", restored_->qmp_path(), path})));
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, GuestThatIsPausedOnPurposeIsNotToldToRunAfterDamage) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest({"--image-version", "3", "--paused"}));
  const Image image(ImagePath());
  const PageBitmap& present = image.contents().blocks.front().present;
  FlipByteOfPage(present.NextPresent(present.pages() / 2, present.pages())->first);
  const Outcome outcome = Begin({})->Wait();
  EXPECT_TRUE(Refused(outcome, 3, "vmrestore --recover --qmp "));
}

TEST_P(LazyRestoreTest, GuestWhoseMemoryIsOnItsWayIsNeitherSavedNorRestoredAgain) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto restore = BeginAndAwaitStart({"--fill-rate", kSlowly});
  EXPECT_TRUE(Refused(RunToEnd({VMSAVE_PROGRAM, "--qmp", restored_->qmp_path(), ImagePath("again.sav")}), 1,
                      "its memory is still on its way"));
  const Outcome again = RunToEnd({VMRESTORE_PROGRAM, "--lazy", "--qmp", restored_->qmp_path(), ImagePath()});
  EXPECT_TRUE(Refused(again, 1, "vmrestore --recover --qmp " + restored_->qmp_path()));
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, DamagedPageIsNeverSeenByTheGuestWhichGoesOnFromASoundCopy) {
  struct Case {
    const char* fill;
    bool first_page;  // found before the guest runs
  };
  for (const auto& [fill, first_page] : {Case{"on", true}, Case{"on", false}, Case{"off", false}}) {
    SCOPED_TRACE(fmt::format("fill {}, first page {}", fill, first_page));
    ASSERT_NO_FATAL_FAILURE(SaveGuest());
    const std::string copy = ImagePath("copy.sav");
    std::filesystem::copy_file(ImagePath(), copy);
    const Image image(ImagePath());
    const PageBitmap& present = image.contents().blocks.front().present;
    FlipByteOfPage(present.NextPresent(first_page ? 0 : present.pages() / 2, present.pages())->first);

    const Outcome outcome = Begin({"--fill", fill})->Wait();

    EXPECT_TRUE(Refused(outcome, 3, "RAM block pc.ram (bytes "));
    EXPECT_NE(outcome.err.find("vmrestore --recover"), std::string::npos) << outcome.err;
    EXPECT_FALSE(restored_->Processes().empty()) << "the guest is not lost";
    EXPECT_TRUE(StandsStill(*restored_));
    EXPECT_TRUE(
        Succeeded(RunToEnd({VMRESTORE_PROGRAM, "--recover", "--running", "--qmp", QmpSocketIn(outcome.err), copy})));
    EXPECT_TRUE(GoesOn(*restored_));
    for (const std::string& path : {ImagePath(), copy, saved_->log_path()}) std::filesystem::remove(path);
  }
}

TEST_P(LazyRestoreTest, SequentialImagesAreRefusedWithWhatToType) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest({"--image-version", "2"}));
  EXPECT_TRUE(Refused(Begin({})->Wait(), 1, "vmimage convert --to 3 " + ImagePath()));
  EXPECT_TRUE(restored_->Processes().empty());
}

TEST_P(LazyRestoreTest, RamThatNobodyCanWatchIsRefusedOrRestoredEagerly) {
  shape_.ram = Ram::kFile;
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  EXPECT_TRUE(Refused(Begin({})->Wait(), 1, "a file on a disk"));
  EXPECT_TRUE(restored_->Processes().empty());

  const Outcome outcome = Restore(*restored_, {"--lazy=auto"});
  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("not lazily: RAM pc.ram is a file on a disk"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*restored_));
}

TEST_P(LazyRestoreTest, WhatTheGuestNeedsFirstIsNotedAndReadFirstTheNextTime) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto demanded_after_start = [&](const std::vector<std::string>& options) {
    restored_ = std::make_unique<Guest>(files_, "restored", shape_);
    restored_->PrintToCopyOf(*saved_);
    const auto restore = BeginAndAwaitStart(options);
    EXPECT_TRUE(GoesOn(*restored_));
    Quit(*restore);
    std::filesystem::remove(restored_->log_path());
  };
  demanded_after_start({"--fill", "off", "--no-record"});
  EXPECT_TRUE(InfoOf(ImagePath()).at("working_set").is_null());
  demanded_after_start({"--fill", "off"});
  const auto first = InfoOf(ImagePath()).at("working_set").at("bytes").get<std::uint64_t>();
  EXPECT_GT(first, 0U);

  demanded_after_start({});
  EXPECT_GE(InfoOf(ImagePath()).at("working_set").at("bytes").get<std::uint64_t>(), first);
  EXPECT_EQ(FilesBesideImage().size(), 2U);
}

TEST_P(LazyRestoreTest, WorkingSetThatIsDamagedIsToldAndNotUsed) {
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  WriteWholeFile(ImagePath() + ".ws", "not a working set at all, but long enough");
  const auto restore = BeginAndAwaitStart({"--no-record"});
  EXPECT_TRUE(GoesOn(*restored_));
  EXPECT_NE(restore->err().find("the working set is not used"), std::string::npos) << restore->err();
  EXPECT_TRUE(InfoOf(ImagePath()).at("working_set").contains("error"));
}

// A QEMU that may not watch its memory, as this host lets nobody without the capability. QEMU 8.1 and newer can be let
// by a file, /dev/userfaultfd.
TEST_P(LazyRestoreTest, WhereUserfaultfdIsForbiddenThatIsSaidOrItRestoresEagerly) {
  std::string setting;
  std::ifstream("/proc/sys/vm/unprivileged_userfaultfd") >> setting;
  if (setting != "0") GTEST_SKIP() << "everybody may watch memory here";
  if (GetParam() == WhichQemu::kNew) GTEST_SKIP() << "it asks /dev/userfaultfd, which its user may open";
  if (::geteuid() != 0) GTEST_SKIP() << "only root has the capability, and can take it away";
  ASSERT_NO_FATAL_FAILURE(SaveGuest());
  const auto run = [this](const std::string& lazy) {
    std::vector<std::string> command{VMRESTORE_PROGRAM, lazy,          "--detach",   ImagePath(),  "--", "setpriv",
                                     "--bounding-set",  "-sys_ptrace", "--inh-caps", "-sys_ptrace"};
    const std::vector<std::string> qemu = restored_->Command();
    command.insert(command.end(), qemu.begin(), qemu.end());
    return RunToEnd(command);
  };
  EXPECT_TRUE(Refused(run("--lazy"), 1, "vm.unprivileged_userfaultfd=1"));
  const Outcome outcome = run("--lazy=auto");
  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_NE(outcome.err.find("not lazily"), std::string::npos) << outcome.err;
  EXPECT_TRUE(GoesOn(*restored_));
}

using LazyUsageTest = EndToEndTest;

TEST_F(LazyUsageTest, OptionsThatDoNotGoTogetherAreRefused) {
  const auto run = [](const std::vector<std::string>& options) {
    std::vector<std::string> command{VMRESTORE_PROGRAM};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {"/nowhere", "--", "/bin/true"});
    return RunToEnd(command);
  };
  EXPECT_TRUE(Refused(run({"--lazy", "--via", "stream"}), 2, "--via"));
  EXPECT_TRUE(Refused(run({"--fill", "off"}), 2, "for --lazy and --recover alone"));
  EXPECT_TRUE(Refused(run({"--fill-rate", "1M"}), 2, "for --lazy and --recover alone"));
  EXPECT_TRUE(Refused(run({"--recover", "--no-record"}), 2, "for --lazy alone"));
  EXPECT_TRUE(Refused(run({"--lazy", "--fill-rate", "1"}), 2, "--fill-rate"));
  EXPECT_TRUE(Refused(run({"--lazy", "--fill-rate", "1M", "--fill", "off"}), 2, "--fill"));
  EXPECT_TRUE(Refused(run({"--lazy=never"}), 2, "--lazy"));
}

}  // namespace
}  // namespace vmsave
