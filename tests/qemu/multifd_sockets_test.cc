#include "qemu/multifd_sockets.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <optional>

#include "format/multifd_packet.h"
#include "qemu/socket_source.h"
#include "tests/format/byte_strings.h"
#include "tests/qemu/multifd_peer.h"
#include "tests/qemu/patience.h"
#include "tests/qemu/scripted_peer.h"

namespace vmsave {
namespace {

constexpr unsigned kChannels = 2;

// This process is the guest's QEMU: it answers QMP, and makes the connections before anybody accepts them.
class MultifdListenerTest : public testing::Test {
 protected:
  ~MultifdListenerTest() override { qmp_.reset(); }

  void Listen(std::chrono::milliseconds patience = kTestPatience) {
    uri_ = listener_.emplace(*qmp_, nullptr, patience).UriFor(kChannels);
  }

  FileDescriptor Connect() const {
    const std::string path = uri_.substr(std::string_view("unix:").size());
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), path);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(&address.sun_path[0], sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return socket;
  }

  void ConnectAndSay(std::span<const std::byte> bytes) { SendAll(connections_.emplace_back(Connect()), bytes); }
  void ConnectAndSay(unsigned char channel) { ConnectAndSay(EncodeMultifdHello({{}, channel})); }
  void ConnectMain() { ConnectAndSay(Hex("5145564d00000003")); }
  void CloseLast() { connections_.pop_back(); }

  MultifdSockets Accept(const std::function<void()>& check = [] {}) { return listener_->Accept(patience_, check); }

  void ExpectRefused(
      ErrorKind kind, std::string_view words, const std::function<void()>& check = [] {}) {
    try {
      Accept(check);
      ADD_FAILURE() << "was accepted; expected: " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
      if (kind == ErrorKind::kFailed) {
        EXPECT_TRUE(std::string_view(error.what()).ends_with(" (try --from stream)")) << error.what();
      }
    }
  }

  const Interrupt patience_ = InterruptOfHangingTest();
  ScriptedPeer peer_{[](Connection& connection) {
    connection.Welcome();
    connection.WaitUntilGone();
  }};
  std::optional<QmpClient> qmp_{std::in_place, peer_.path(), patience_, kTestPatience};
  std::optional<MultifdListener> listener_;
  std::string uri_;
  std::vector<FileDescriptor> connections_;
};

TEST_F(MultifdListenerTest, SortsConnectionsThatComeInAnyOrder) {
  Listen();
  ConnectAndSay(1);
  SendAll(connections_.back(), ToBytes("one"));
  ConnectMain();
  ConnectAndSay(0);
  SendAll(connections_.back(), ToBytes("zero"));
  const MultifdSockets sockets = Accept();
  ASSERT_EQ(sockets.channels.size(), kChannels);
  const auto read = [&](const FileDescriptor& socket, std::size_t count) {
    Bytes bytes(count);
    SocketReader(socket, patience_).ReadAll(std::span(bytes));
    return bytes;
  };
  EXPECT_EQ(read(sockets.main, 8), Hex("5145564d00000003"));
  EXPECT_EQ(read(sockets.channels[0], 4), ToBytes("zero"));
  EXPECT_EQ(read(sockets.channels[1], 3), ToBytes("one"));
  EXPECT_EQ(sockets.channels[1].name(), "multifd channel 1");
}

TEST_F(MultifdListenerTest, RefusesTwoMainStreams) {
  Listen();
  ConnectMain();
  ConnectAndSay(0);
  ConnectMain();
  ExpectRefused(ErrorKind::kDamaged, "there are two main streams");
}

// Where there is no main stream, a channel comes twice or is out of range.
TEST_F(MultifdListenerTest, RefusesAChannelThatComesTwice) {
  Listen();
  ConnectAndSay(1);
  ConnectAndSay(0);
  ConnectAndSay(1);
  ExpectRefused(ErrorKind::kDamaged, "multifd channel 1 comes twice");
}

TEST_F(MultifdListenerTest, RefusesAChannelOutOfRange) {
  Listen();
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(2);
  ExpectRefused(ErrorKind::kDamaged, "multifd channel 2 is not one of 0 to 1");
}

TEST_F(MultifdListenerTest, RefusesAConnectionThatIsNeither) {
  Listen();
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(ToBytes("GET / HTTP/1.1\r\nHost: a host that is rather long, and more than a hello\r\n\r\n"));
  ExpectRefused(ErrorKind::kDamaged, "it starts with 47455420 instead of 11223344");
}

TEST_F(MultifdListenerTest, GivesUpWhereAConnectionIsNotMade) {
  Listen(std::chrono::milliseconds(1));
  ConnectMain();
  ConnectAndSay(0);
  ExpectRefused(ErrorKind::kFailed, "QEMU does not make all the connections that it should");
}

TEST_F(MultifdListenerTest, GivesUpWhereAConnectionSaysNothing) {
  Listen(std::chrono::milliseconds(1));
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(Bytes());
  ExpectRefused(ErrorKind::kFailed, "QEMU made a connection and does not say for what");
}

TEST_F(MultifdListenerTest, GivesUpWhereAConnectionSaysTooLittle) {
  Listen(std::chrono::milliseconds(1));
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(Hex("1122"));
  ExpectRefused(ErrorKind::kFailed, "QEMU made a connection and does not say for what");
}

TEST_F(MultifdListenerTest, GivesUpWhereAHelloIsNotFinished) {
  Listen(std::chrono::milliseconds(1));
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(std::span<const std::byte>(EncodeMultifdHello({{}, 1})).first(63));
  ExpectRefused(ErrorKind::kFailed, "QEMU made a connection and does not say for what");
}

TEST_F(MultifdListenerTest, AConnectionThatIsClosedAtOnceIsAnError) {
  Listen();
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(Bytes());
  CloseLast();
  ExpectRefused(ErrorKind::kFailed, "QEMU closed a connection that had just been made");
}

TEST_F(MultifdListenerTest, AConnectionThatIsClosedInItsMagicIsAnError) {
  Listen();
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(Hex("112233"));
  CloseLast();
  ExpectRefused(ErrorKind::kFailed, "QEMU closed a connection that had just been made");
}

TEST_F(MultifdListenerTest, AConnectionThatIsClosedInItsHelloIsAnError) {
  Listen();
  ConnectMain();
  ConnectAndSay(0);
  ConnectAndSay(std::span<const std::byte>(EncodeMultifdHello({{}, 1})).first(30));
  CloseLast();
  ExpectRefused(ErrorKind::kDamaged, "it ends early");
}

TEST_F(MultifdListenerTest, RefusesAProcessOtherThanQemu) {
  Listen();
  const pid_t stranger = ::fork();
  ASSERT_GE(stranger, 0);
  if (stranger == 0) {
    const FileDescriptor connection = Connect();
    ::_exit(connection.valid() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(stranger, &status, 0), stranger);
  ASSERT_EQ(status, 0);
  ExpectRefused(ErrorKind::kFailed, "process " + std::to_string(stranger) + " has connected, which is not the guest's");
}

TEST_F(MultifdListenerTest, EndsWithWhatTheCheckThrows) {
  Listen();
  ConnectMain();
  ExpectRefused(ErrorKind::kFailed, "cannot receive the guest's migration: the migration has failed",
                [] { throw Error(ErrorKind::kFailed, "cannot save", "the migration has failed"); });
}

TEST_F(MultifdListenerTest, GivesWayToTheInterrupt) {
  Listen();
  try {
    listener_->Accept(RequestedInterrupt(), [] {});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

}  // namespace
}  // namespace vmsave
