#include "qemu/kept_serving.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <future>
#include <string>
#include <thread>

#include "format/error.h"

namespace vmsave {
namespace {

// No process has it, and no other test at the same time.
const pid_t kQemu = 1'000'000'000 + ::getpid();

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

std::optional<KeptServing> TakeOnceItIsThere(pid_t qemu) {
  while (true) {
    if (std::optional<KeptServing> kept = TakeKept(qemu)) return kept;
    std::this_thread::yield();
  }
}

class KeptServingTest : public testing::Test {
 protected:
  KeptServing Kept() {
    KeptServing kept;
    kept.record.qmp_socket = "/run/qmp";
    kept.record.serving.emplace().image = "/srv/a.sav";
    kept.qmp = std::move(qmp_.ours);
    kept.spare = std::move(spare_.ours);
    return kept;
  }

  std::future<KeptEnd> Keep(KeptServing kept) {
    return std::async(std::launch::async, [kept = std::move(kept)] { return KeepUntilTaken(kept, kQemu); });
  }

  Ends qmp_ = MakeConnection();
  Ends spare_ = MakeConnection();
};

TEST_F(KeptServingTest, IsHandedOverWithItsConnections) {
  std::future<KeptEnd> end = Keep(Kept());

  const std::optional<KeptServing> taken = TakeOnceItIsThere(kQemu);

  EXPECT_EQ(end.get(), KeptEnd::kTaken);
  EXPECT_EQ(taken->record.serving->image, "/srv/a.sav");
  Say(qmp_.theirs, "from QEMU");
  EXPECT_EQ(Hear(taken->qmp), "from QEMU");
  Say(spare_.theirs, "from the other end");
  EXPECT_EQ(Hear(taken->spare), "from the other end");
}

TEST_F(KeptServingTest, IsHandedOverWithoutASpare) {
  spare_.ours = FileDescriptor();
  std::future<KeptEnd> end = Keep(Kept());

  const std::optional<KeptServing> taken = TakeOnceItIsThere(kQemu);

  EXPECT_EQ(end.get(), KeptEnd::kTaken);
  EXPECT_TRUE(taken->qmp.valid());
  EXPECT_FALSE(taken->spare.valid());
}

TEST_F(KeptServingTest, IsKeptUntilQemuEnds) {
  std::future<KeptEnd> end = Keep(Kept());
  Say(qmp_.theirs, "events that nobody reads");

  qmp_.theirs.Close();

  EXPECT_EQ(end.get(), KeptEnd::kQemuEnded);
}

TEST_F(KeptServingTest, IsKeptOnWhereWhoAskedForItIsGoneAtOnce) {
  std::future<KeptEnd> end = Keep(Kept());
  const auto ask_and_go = [] {
    const FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "a recovery");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "vmsave-kept-" + std::to_string(kQemu);
    name.copy(&address.sun_path[1], name.size());
    return ::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address),
                     static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())) == 0;
  };
  while (!ask_and_go()) std::this_thread::yield();

  EXPECT_TRUE(TakeOnceItIsThere(kQemu));
  EXPECT_EQ(end.get(), KeptEnd::kTaken);
}

TEST_F(KeptServingTest, IsNotThereForAnotherQemu) {
  std::future<KeptEnd> end = Keep(Kept());

  EXPECT_FALSE(TakeKept(-kQemu));

  qmp_.theirs.Close();
  EXPECT_EQ(end.get(), KeptEnd::kQemuEnded);
}

}  // namespace
}  // namespace vmsave
