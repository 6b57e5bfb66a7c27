// Guests that cannot be saved: the message says why, and the guest is as it was.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <thread>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

// A unix socket that somebody listens at and that never says more than `greeting`.
class ListeningSocket {
 public:
  ListeningSocket(const std::string& path, const std::string& greeting)
      : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) throw std::runtime_error("the path is too long for a socket: " + path);
    std::memcpy(address.sun_path, path.data(), path.size());
    if (::bind(socket_.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(socket_.number(), 4) != 0) {
      throw std::runtime_error("cannot listen at " + path);
    }
    greeter_ = std::thread([this, greeting] {
      connection_ = FileDescriptor(::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC), "connection");
      if (connection_.valid() && !greeting.empty()) {
        ::send(connection_.number(), greeting.data(), greeting.size(), MSG_NOSIGNAL);
      }
    });
  }
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  ~ListeningSocket() {
    ::shutdown(socket_.number(), SHUT_RDWR);
    greeter_.join();
  }

 private:
  FileDescriptor socket_;
  FileDescriptor connection_;
  std::thread greeter_;
};

class RefusedSocketTest : public EndToEndTest {
 protected:
  void SetUp() override {}  // no QEMU needed

  Outcome SaveBy(const std::string& socket) const { return RunToEnd({VMSAVE_PROGRAM, "--qmp", socket, ImagePath()}); }
};

TEST_F(RefusedSocketTest, NoSuchSocket) {
  const std::string path = files_.Path("nothing.qmp");

  EXPECT_TRUE(Refused(SaveBy(path), 1, path));

  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(RefusedSocketTest, FileThatIsNoSocket) {
  const std::string path = files_.Path("file");
  WriteWholeFile(path, "text");

  EXPECT_TRUE(Refused(SaveBy(path), 1, path));

  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(RefusedSocketTest, SocketThatSaysNothing) {
  const std::string path = files_.Path("silent");
  const ListeningSocket silent(path, "");

  EXPECT_TRUE(Refused(SaveBy(path), 1, path));

  EXPECT_TRUE(FilesBesideImage().empty());
}

TEST_F(RefusedSocketTest, SocketThatSpeaksSomethingElse) {
  const std::string path = files_.Path("other");
  const ListeningSocket other(path, "220 mail.example ESMTP\r\n");

  EXPECT_TRUE(Refused(SaveBy(path), 1, "not a QMP socket"));

  EXPECT_TRUE(FilesBesideImage().empty());
}

class RefusedGuestTest : public EachQemuTest {
 protected:
  void Boot(Ram ram = Ram::kFile, const std::string& machine = "pc-i440fx-7.2") {
    GuestShape shape;
    shape.qemu = GetParam();
    shape.ram = ram;
    shape.machine = machine;
    guest_ = std::make_unique<Guest>(files_, "guest", shape);
    guest_->Boot();
  }

  void ExpectUntouched() const {
    EXPECT_EQ(guest_->Status(), "running");
    EXPECT_TRUE(GoesOn(*guest_));
    EXPECT_TRUE(FilesBesideImage().empty());
  }

  std::unique_ptr<Guest> guest_;
};

INSTANTIATE_TEST_SUITE_P(Both, RefusedGuestTest, testing::Values(WhichQemu::kOld, WhichQemu::kNew), NameOfQemu);

TEST_P(RefusedGuestTest, SocketIsBusyWithAnotherClient) {
  Boot();
  {
    const std::unique_ptr<QmpClient> other = guest_->Connect();

    EXPECT_TRUE(Refused(Save(*guest_), 1, "another client"));
  }
  ExpectUntouched();
}

// A version 2 image of it could not be told from one that was cut short.
TEST_P(RefusedGuestTest, StreamThatWouldNotShowItsEnd) {
  Boot(Ram::kFile, "pc-i440fx-7.2,suppress-vmdesc=on");

  EXPECT_TRUE(Refused(Save(*guest_, {"--image-version", "2"}), 1, "suppress-vmdesc"));
  ExpectUntouched();

  EXPECT_TRUE(Succeeded(Save(*guest_, {"--image-version", "3"})));
  EXPECT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()})));
}

TEST_P(RefusedGuestTest, GuestThatIsBeingMigrated) {
  Boot();
  const std::string path = files_.Path("destination");
  const ListeningSocket nobody_reads(path, "");
  {
    const std::unique_ptr<QmpClient> qmp = guest_->Connect();
    qmp->Execute("migrate-set-parameters", {{"max-bandwidth", 4096}});
    qmp->Execute("migrate", {{"uri", "unix:" + path}});
    WaitUntil("the migration", [&] { return qmp->Execute("query-migrate").value("status", "") == "active"; });
  }

  EXPECT_TRUE(Refused(Save(*guest_), 1, "migrated already"));

  EXPECT_EQ(guest_->Connect()->Execute("query-migrate").value("status", ""), "active");
  ExpectUntouched();
}

TEST_P(RefusedGuestTest, QemuThatWaitsForAGuest) {
  GuestShape shape;
  shape.qemu = GetParam();
  Guest waiting(files_, "waiting", shape);
  waiting.Start({"-incoming", "defer"});

  EXPECT_TRUE(Refused(Save(waiting), 1, "incoming"));

  EXPECT_EQ(waiting.Status(), "inmigrate");
  EXPECT_TRUE(FilesBesideImage().empty());
}

}  // namespace
}  // namespace vmsave
