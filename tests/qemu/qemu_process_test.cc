#include "qemu/qemu_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <thread>

#include "tests/qemu/running_qemu.h"

namespace vmsave {
namespace {

CommandFacts Facts(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "qemu-system-x86_64");
  return ReadCommand(arguments);
}

TEST(ReadCommandTest, ReadsTheMachineTypeInAllForms) {
  EXPECT_EQ(Facts({"-machine", "pc-i440fx-7.2,memory-backend=pc.ram"}).machine_type, "pc-i440fx-7.2");
  EXPECT_EQ(Facts({"--machine", "accel=tcg,type=q35"}).machine_type, "q35");
  EXPECT_EQ(Facts({"-M", "q35"}).machine_type, "q35");
  EXPECT_EQ(Facts({"-M", "pc", "-M", "q35", "-machine", "accel=tcg"}).machine_type, "q35");
}

TEST(ReadCommandTest, ReadsTheMemorySizeInAllForms) {
  const auto memory = [](const char* value) { return Facts({"-m", value}).memory; };
  EXPECT_EQ(memory("256"), ByteCount{256U << 20});
  EXPECT_EQ(memory("256M"), ByteCount{256U << 20});
  EXPECT_EQ(memory("4096k"), ByteCount{4096U << 10});
  EXPECT_EQ(memory("4G"), ByteCount{std::uint64_t{4} << 30});
  EXPECT_EQ(memory("1T"), ByteCount{std::uint64_t{1} << 40});
  EXPECT_EQ(memory("size=1G,slots=2,maxmem=4G"), ByteCount{1U << 30});
  EXPECT_EQ(memory("1G,slots=2"), ByteCount{1U << 30});
  EXPECT_EQ(Facts({"-m", "1G", "-m", "slots=2,maxmem=4G"}).memory, ByteCount{1U << 30});
}

TEST(ReadCommandTest, TellsNothingAboutWhatIsMalformedOrNotSaid) {
  for (const char* value :
       {"", "G", "-1", "1X", "1GG", "99999999999999999999", "99999999999E", "size=", "slots=2", "0"}) {
    EXPECT_EQ(Facts({"-m", value}).memory, std::nullopt) << value;
  }
  EXPECT_EQ(Facts({"-m"}).memory, std::nullopt);
  EXPECT_EQ(Facts({}).machine_type, std::nullopt);
  EXPECT_EQ(Facts({"-machine", "accel=tcg"}).machine_type, std::nullopt);
  EXPECT_EQ(ReadCommand({}).memory, std::nullopt);
}

TEST(ReadCommandTest, SeesIncomingAndDaemonize) {
  EXPECT_TRUE(Facts({"-incoming", "defer"}).has_incoming);
  EXPECT_TRUE(Facts({"--daemonize"}).daemonizes);
  EXPECT_FALSE(Facts({"-m", "1G"}).has_incoming);
  EXPECT_FALSE(Facts({"-m", "1G"}).daemonizes);
}

TEST(ReadCommandTest, LeavesOptionsOfALauncherOut) {
  const CommandFacts facts = ReadCommand({"numactl", "-m", "1", "/usr/bin/qemu-system-x86_64", "-M", "q35"});
  EXPECT_EQ(facts.memory, std::nullopt);
  EXPECT_EQ(facts.machine_type, "q35");
  EXPECT_EQ(ReadCommand({"my-vm", "-m", "1G"}).memory, ByteCount{1U << 30});
}

// The message of the Error that waiting for `process` throws.
std::string WaitMessage(QemuProcess& process, std::chrono::milliseconds timeout = kTestPatience) {
  try {
    process.WaitReady(timeout);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Waits until the process, which need not be a child, has ended (or is nobody's zombie).
bool WaitGone(pid_t pid) {
  const auto deadline = std::chrono::steady_clock::now() + kTestPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string stat;
    if (!std::getline(file, stat) || stat.find(") Z ") != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(QemuProcessTest, TellsThatThereIsNoSuchProgram) {
  const Interrupt never;
  try {
    const QemuProcess process({"/no/such/program"}, never);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("cannot start /no/such/program: No such file"), std::string::npos);
  }
}

TEST(QemuProcessTest, RefusesAnEmptyCommand) {
  const Interrupt never;
  EXPECT_THROW(QemuProcess({}, never), Error);
}

TEST(QemuProcessTest, TellsHowAProgramEndedThatIsNotReadyYet) {
  const Interrupt never;
  QemuProcess failing({"sh", "-c", "exit 3"}, never);
  EXPECT_NE(WaitMessage(failing).find("it ended with status 3"), std::string::npos);
  QemuProcess killed({"sh", "-c", "kill -9 $$"}, never);
  EXPECT_NE(WaitMessage(killed).find("it was ended by signal 9"), std::string::npos);
  QemuProcess daemon({"sh", "-c", "exit 0", "qemu-x", "-daemonize"}, never);
  EXPECT_NE(WaitMessage(daemon).find("it ended with status 0"), std::string::npos);
}

TEST(QemuProcessTest, GivesUpOnAProgramThatIsNeverReady) {
  const Interrupt never;
  QemuProcess process({"sh", "-c", "exec sleep 1000"}, never);
  EXPECT_NE(WaitMessage(process, std::chrono::milliseconds(50)).find("does not answer"), std::string::npos);
}

TEST(QemuProcessTest, WaitingGivesWayToAnInterrupt) {
  const Interrupt requested(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "event"));
  QemuProcess process({"sh", "-c", "exec sleep 1000"}, requested);
  EXPECT_NE(WaitMessage(process).find("interrupted"), std::string::npos);
}

TEST(QemuProcessTest, KillsAProgramThatIgnoresSigterm) {
  const Interrupt never;
  const ScratchDirectory directory;
  const std::string pid_file = directory.Path("pid");
  std::string pid;
  {
    const QemuProcess process(
        {"sh", "-c", "trap '' TERM; echo $$ > $0.part; mv $0.part $0; while :; do sleep 1; done", pid_file}, never);
    while (!std::filesystem::exists(pid_file)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::getline(std::ifstream(pid_file) >> std::ws, pid);
  }
  EXPECT_EQ(::kill(std::stoi(pid), 0), -1);
}

TEST(QemuProcessTest, ReturnsTheExitStatusAsAShellDoes) {
  const Interrupt never;
  QemuProcess ended({"sh", "-c", "exit 7"}, never);
  ended.Release();
  EXPECT_EQ(ended.WaitExit(), 7);
  QemuProcess killed({"sh", "-c", "kill -KILL $$"}, never);
  killed.Release();
  EXPECT_EQ(killed.WaitExit(), 128 + SIGKILL);
}

TEST(QemuProcessTest, PassesSigtermOnButLeavesSigintToTheTerminal) {
  const Interrupt signals = Interrupt::FromSignals();
  const ScratchDirectory directory;
  const std::string started = directory.Path("started");
  const std::string script = "trap 'exit 5' TERM; trap 'exit 6' INT; : > $0; while :; do sleep 0.05; done";
  QemuProcess process({"sh", "-c", script, started}, signals);
  process.Release();
  while (!std::filesystem::exists(started)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(::getpid(), SIGINT);
  ::kill(::getpid(), SIGTERM);
  EXPECT_EQ(process.WaitExit(), 5);
}

TEST(QemuProcessTest, KeepsItsSocketInAPrivateDirectoryAndRemovesIt) {
  const Interrupt never;
  const ScratchDirectory directory;
  ::setenv("XDG_RUNTIME_DIR", directory.path().c_str(), 1);
  {
    const QemuProcess process({"sh", "-c", "exec sleep 1000"}, never);
    const auto parent = std::filesystem::path(process.qmp_socket_path()).parent_path();
    EXPECT_EQ(parent.parent_path(), directory.path());
    EXPECT_EQ(std::filesystem::status(parent).permissions(), std::filesystem::perms(0700));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  ::setenv("XDG_RUNTIME_DIR", directory.Path(std::string(100, 'x')).c_str(), 1);
  const QemuProcess elsewhere({"sh", "-c", "exec sleep 1000"}, never);
  EXPECT_FALSE(elsewhere.qmp_socket_path().starts_with(directory.path().native()));
  ::unsetenv("XDG_RUNTIME_DIR");
}

class QemuProcessWithQemuTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::optional<std::string> executable = QemuFromEnvironment(GetParam());
    if (!executable) GTEST_SKIP() << GetParam() << " names no QEMU";
    executable_ = *executable;
  }

  std::vector<std::string> Command(const std::vector<std::string>& first, const std::vector<std::string>& last = {}) {
    std::vector<std::string> command = first;
    command.insert(command.end(), {executable_, "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "16M"});
    command.insert(command.end(), last.begin(), last.end());
    return command;
  }

  // Starts it, sees that it waits for an incoming guest, and lets the destructor end it.
  void ExpectStartsAndIsKilled(const std::vector<std::string>& command) {
    pid_t pid = 0;
    {
      QemuProcess process(command, never_);
      process.WaitReady(kTestPatience);
      QmpClient qmp(process.qmp_socket_path(), never_, kTestPatience);
      EXPECT_EQ(qmp.Execute("query-status")["status"], "inmigrate");
      pid = qmp.peer_pid();
    }
    EXPECT_GT(pid, 0);
    EXPECT_TRUE(WaitGone(pid));
  }

  Interrupt never_;
  std::string executable_;
};

TEST_P(QemuProcessWithQemuTest, StartsAQemuThatWaitsAndKillsIt) {
  ExpectStartsAndIsKilled(Command({}));
}

TEST_P(QemuProcessWithQemuTest, StartsAndKillsOneBehindALauncherThatExecutesIt) {
  ExpectStartsAndIsKilled(Command({"env", "nice"}));
}

TEST_P(QemuProcessWithQemuTest, StartsAndKillsOneThatALauncherStartsAsItsChild) {
  ExpectStartsAndIsKilled(Command({"sh", "-c", "\"$@\"; exit $?", "launcher"}));
}

TEST_P(QemuProcessWithQemuTest, StartsAndKillsOneThatDaemonizes) {
  ExpectStartsAndIsKilled(Command({}, {"-daemonize"}));
}

TEST_P(QemuProcessWithQemuTest, WorksBesideStopAndQmpOptionsOfTheUser) {
  const ScratchDirectory directory;
  ExpectStartsAndIsKilled(Command({}, {"-S", "-qmp", "unix:" + directory.Path("own.sock") + ",server=on,wait=off"}));
}

TEST_P(QemuProcessWithQemuTest, WorksWhereTheDirectorysNameHasACommaAndABlank) {
  const ScratchDirectory directory;
  const std::string odd = directory.Path("a,b c");
  std::filesystem::create_directory(odd);
  ::setenv("XDG_RUNTIME_DIR", odd.c_str(), 1);
  ExpectStartsAndIsKilled(Command({}));
  ::unsetenv("XDG_RUNTIME_DIR");
}

TEST_P(QemuProcessWithQemuTest, TellsThatQemuRefusedItsCommand) {
  QemuProcess process(Command({}, {"-no-such-option"}), never_);
  EXPECT_NE(WaitMessage(process).find("it ended with status 1"), std::string::npos);
}

// Such a QEMU has greeted already when it fails.
TEST_P(QemuProcessWithQemuTest, TellsThatQemuFailedAtADevice) {
  QemuProcess process(Command({}, {"-device", "no-such-device"}), never_);
  EXPECT_NE(WaitMessage(process).find("it ended with status 1"), std::string::npos);
}

TEST_P(QemuProcessWithQemuTest, TellsThatADaemonizingQemuRefusedItsCommand) {
  QemuProcess process(Command({}, {"-daemonize", "-device", "no-such-device"}), never_);
  EXPECT_NE(WaitMessage(process).find("it ended with status 1"), std::string::npos);
}

TEST_P(QemuProcessWithQemuTest, LeavesAReleasedOneRunning) {
  std::optional<QmpClient> qmp;
  {
    QemuProcess process(Command({}), never_);
    process.WaitReady(kTestPatience);
    qmp.emplace(process.qmp_socket_path(), never_, kTestPatience);
    process.Release();
  }
  EXPECT_EQ(qmp->Execute("query-status")["status"], "inmigrate");
  qmp->Execute("quit");
  EXPECT_TRUE(qmp->WaitClosed(kTestPatience));
}

TEST_P(QemuProcessWithQemuTest, WaitsForTheEndOfAReleasedOne) {
  QemuProcess process(Command({}), never_);
  process.WaitReady(kTestPatience);
  QmpClient qmp(process.qmp_socket_path(), never_, kTestPatience);
  process.Release();
  qmp.Execute("quit");
  EXPECT_EQ(process.WaitExit(), 0);
}

TEST_P(QemuProcessWithQemuTest, DoesNotWaitForAReleasedDaemon) {
  QemuProcess process(Command({}, {"-daemonize"}), never_);
  process.WaitReady(kTestPatience);
  QmpClient qmp(process.qmp_socket_path(), never_, kTestPatience);
  process.Release();
  EXPECT_EQ(process.WaitExit(), 0);
  EXPECT_EQ(qmp.Execute("query-status")["status"], "inmigrate");
  qmp.Execute("quit");
}

INSTANTIATE_TEST_SUITE_P(Qemu, QemuProcessWithQemuTest, testing::Values("VMSAVE_QEMU_OLD", "VMSAVE_QEMU_NEW"),
                         [](const auto& test) { return std::string(test.param).substr(std::strlen("VMSAVE_QEMU_")); });

}  // namespace
}  // namespace vmsave
