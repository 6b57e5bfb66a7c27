#include "qemu/kept_serving.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/qemu/scripted_peer.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

struct Ends {
  FileDescriptor ours;
  FileDescriptor theirs;
};

Ends MakeConnection() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {FileDescriptor(ends[0], "ours"), FileDescriptor(ends[1], "theirs")};
}

void Say(const FileDescriptor& socket, const std::string& text) {
  EXPECT_EQ(::write(socket.number(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

std::string Hear(const FileDescriptor& socket) {
  std::array<char, 100> bytes{};
  const ssize_t count = ::read(socket.number(), bytes.data(), bytes.size());
  return {bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

void NobodyHolds(const KeptServing&) {}

class KeptServingTest : public testing::Test {
 protected:
  // QEMU's end of a connection is that of whoever listens.
  void SetUp() override {
    const FileDescriptor listener = Listen(qmp_path_);
    qmp_.ours = FileDescriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "ours");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    qmp_path_.copy(&address.sun_path[0], qmp_path_.size());
    ASSERT_EQ(::connect(qmp_.ours.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    qmp_.theirs = FileDescriptor(::accept(listener.number(), nullptr, nullptr), "theirs");
  }

  std::future<KeptEnd> Keep() {
    KeptServing kept;
    kept.record.qmp_socket = qmp_path_;
    kept.record.serving.emplace().image = "/srv/a.sav";
    kept.qmp = std::move(qmp_.ours);
    if (spare_.ours.valid()) kept.spares.push_back({"spare", std::move(spare_.ours)});
    return std::async(std::launch::async, [kept = std::move(kept), listener = KeptListener(qmp_path_)]() mutable {
      return listener.KeepUntilTaken(kept);
    });
  }

  ScratchDirectory directory_{std::filesystem::temp_directory_path()};  // which other users may enter
  std::string qmp_path_ = directory_.Path("qmp");
  Ends qmp_;
  Ends spare_ = MakeConnection();
};

TEST_F(KeptServingTest, IsHandedOverWithItsConnections) {
  std::future<KeptEnd> end = Keep();

  const std::optional<KeptServing> taken = TakeKept(qmp_path_, NobodyHolds);

  EXPECT_EQ(end.get(), KeptEnd::kTaken);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->record.serving->image, "/srv/a.sav");
  Say(qmp_.theirs, "from QEMU");
  EXPECT_EQ(Hear(taken->qmp), "from QEMU");
  ASSERT_EQ(taken->spares.size(), 1U);
  EXPECT_EQ(taken->spares[0].name, "spare");
  Say(spare_.theirs, "from the other end");
  EXPECT_EQ(Hear(taken->spares[0].socket), "from the other end");
}

TEST_F(KeptServingTest, IsHandedOverWithoutASpare) {
  spare_.ours.Close();
  std::future<KeptEnd> end = Keep();

  const std::optional<KeptServing> taken = TakeKept(qmp_path_, NobodyHolds);

  EXPECT_EQ(end.get(), KeptEnd::kTaken);
  ASSERT_TRUE(taken);
  EXPECT_TRUE(taken->spares.empty());
}

TEST_F(KeptServingTest, IsKeptUntilQemuEnds) {
  std::future<KeptEnd> end = Keep();
  Say(qmp_.theirs, "events that nobody reads");

  qmp_.theirs.Close();

  EXPECT_EQ(end.get(), KeptEnd::kQemuEnded);
}

TEST_F(KeptServingTest, IsKeptOnWhereWhoAskedForItCannotHoldIt) {
  std::future<KeptEnd> end = Keep();

  EXPECT_THROW(TakeKept(qmp_path_, [](const KeptServing&) { throw std::runtime_error("no room"); }),
               std::runtime_error);

  EXPECT_TRUE(TakeKept(qmp_path_, NobodyHolds));
  EXPECT_EQ(end.get(), KeptEnd::kTaken);
}

TEST_F(KeptServingTest, IsKeptOnceWhereTwoHaveIt) {
  std::future<KeptEnd> end = Keep();
  spare_ = MakeConnection();
  qmp_.ours = FileDescriptor(::dup(qmp_.theirs.number()), "a duplicate");

  EXPECT_EQ(Keep().get(), KeptEnd::kKeptByAnother);

  EXPECT_TRUE(TakeKept(qmp_path_, NobodyHolds));
  EXPECT_EQ(end.get(), KeptEnd::kTaken);
}

// Killed between the two, the process leaves it to its guard.
TEST_F(KeptServingTest, IsTakenByWhoFinishesTheTaking) {
  std::future<KeptEnd> end = Keep();
  FileDescriptor hand_over;
  const auto die = [&](const KeptServing& held) {
    hand_over = FileDescriptor(::dup(held.hand_over.number()), "a guard's");
    throw std::runtime_error("killed");
  };
  EXPECT_THROW(TakeKept(qmp_path_, die), std::runtime_error);

  EXPECT_TRUE(FinishTaking(hand_over));

  EXPECT_EQ(end.get(), KeptEnd::kTaken);
  EXPECT_FALSE(TakeKept(qmp_path_, NobodyHolds));
}

TEST_F(KeptServingTest, IsNotTakenWhereTheKeeperHasGivenUpWaiting) {
  Ends hand_over = MakeConnection();
  hand_over.theirs.Close();
  EXPECT_FALSE(FinishTaking(hand_over.ours));
}

// A keeper in a process of another user.
class KeptByAnotherUserTest : public KeptServingTest {
 protected:
  static constexpr uid_t kNobody = 65534;

  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can be another user";
    KeptServingTest::SetUp();
    ASSERT_EQ(::chmod(directory_.path().c_str(), 0711), 0);
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    keeper_ = ::fork();
    if (keeper_ == 0) ::_exit(KeepAsNobody(ends[1]));
    const FileDescriptor listens(ends[0], "until it listens");
    ::close(ends[1]);
    ASSERT_EQ(Hear(listens), "listens");
  }

  void TearDown() override {
    if (keeper_ <= 0) return;
    ::kill(keeper_, SIGKILL);
    ::waitpid(keeper_, nullptr, 0);
  }

  int KeeperStatus() {
    int status = -1;
    ::waitpid(std::exchange(keeper_, 0), &status, 0);
    return status;
  }

 private:
  int KeepAsNobody(int tell) noexcept {
    try {
      if (::setuid(kNobody) != 0) return 1;
      KeptListener listener(qmp_path_);
      KeptServing kept;
      kept.record.qmp_socket = qmp_path_;
      kept.record.serving.emplace().image = "/srv/a.sav";
      kept.qmp = std::move(qmp_.ours);
      const auto on_listening = [tell] { [[maybe_unused]] const ssize_t written = ::write(tell, "listens", 7); };
      return listener.KeepUntilTaken(kept, on_listening) == KeptEnd::kTaken ? 0 : 2;
    } catch (const std::exception&) {
      return 3;
    }
  }

  pid_t keeper_ = 0;
};

TEST_F(KeptByAnotherUserTest, IsTakenByRootWhereTheGuestIsThatUsers) {
  ASSERT_EQ(::chown(qmp_path_.c_str(), kNobody, kNobody), 0);

  const std::optional<KeptServing> taken = TakeKept(qmp_path_, NobodyHolds);

  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->record.serving->image, "/srv/a.sav");
  EXPECT_EQ(KeeperStatus(), 0);
}

TEST_F(KeptByAnotherUserTest, IsPassedOverWhereTheGuestIsNot) {
  EXPECT_FALSE(TakeKept(qmp_path_, NobodyHolds));
}

TEST_F(KeptByAnotherUserTest, IsNotKeptBesideIt) {
  ASSERT_EQ(::chown(qmp_path_.c_str(), kNobody, kNobody), 0);
  EXPECT_EQ(Keep().get(), KeptEnd::kKeptByAnother);
}

TEST_F(KeptServingTest, IsNotThereForAnotherSocket) {
  std::future<KeptEnd> end = Keep();
  const FileDescriptor other = Listen(directory_.Path("other"));

  EXPECT_FALSE(TakeKept(directory_.Path("other"), NobodyHolds));

  qmp_.theirs.Close();
  EXPECT_EQ(end.get(), KeptEnd::kQemuEnded);
}

TEST_F(KeptServingTest, IsKeptByTheNextWhereTheFirstEnds) {
  auto first = std::make_unique<KeptListener>(qmp_path_);
  std::future<KeptEnd> end = Keep();

  first.reset();

  std::optional<KeptServing> taken;
  while (!taken) taken = TakeKept(qmp_path_, NobodyHolds);
  EXPECT_EQ(end.get(), KeptEnd::kTaken);
}

}  // namespace
}  // namespace vmsave
