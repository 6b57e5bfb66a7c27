#include "qemu/migration_end.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <vector>

#include "tests/io/child_process.h"

namespace vmsave {
namespace {

struct Connection {
  FileDescriptor ours;
  FileDescriptor qemus;
};

Connection Connect() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) throw std::runtime_error("no socket");
  return {FileDescriptor(ends[0], "ours"), FileDescriptor(ends[1], "QEMU's")};
}

constexpr std::size_t kMoreThanASocketHolds = 8 << 20;

// Returns once all of it has been taken; else the errno.
int SendAll(const FileDescriptor& socket, std::size_t count) {
  const std::vector<char> bytes(count);
  for (std::size_t sent = 0; sent < count;) {
    const ssize_t got = ::send(socket.number(), bytes.data() + sent, count - sent, MSG_NOSIGNAL);
    if (got < 0) return errno;
    sent += static_cast<std::size_t>(got);
  }
  return 0;
}

TEST(SocketDrainTest, MakesRoomForWhatIsSent) {
  const Connection connection = Connect();
  const std::array<const FileDescriptor*, 1> sockets{&connection.ours};
  const SocketDrain drain(sockets);

  EXPECT_EQ(SendAll(connection.qemus, kMoreThanASocketHolds), 0);
}

TEST(SocketDrainTest, LetsNobodyWaitWhereThereAreNoThreads) {
  const std::string said = InChild([]() -> std::string {
    const Connection connection = Connect();
    if (!FailSystemCall(SYS_clone3, EAGAIN) || !FailSystemCall(SYS_clone, EAGAIN)) return kNotPermitted;
    const std::array<const FileDescriptor*, 1> sockets{&connection.ours};
    const SocketDrain drain(sockets);
    return SendAll(connection.qemus, kMoreThanASocketHolds) == EPIPE ? "it breaks" : "it is taken";
  });

  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "it breaks");
}

}  // namespace
}  // namespace vmsave
