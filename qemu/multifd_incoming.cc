#include "qemu/multifd_incoming.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <set>

#include "io/held_process.h"

namespace vmsave {
namespace {

constexpr std::string_view kCapability = "multifd";
constexpr std::string_view kSocketName = "incoming";
constexpr int kRetryMs = 10;

// "00112233-4455-6677-8899-aabbccddeeff"; all zeros for a guest without one.
std::array<std::byte, 16> ReadUuid(const std::string& text) {
  std::array<std::byte, 16> uuid{};
  std::size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    const std::size_t value = std::string_view("0123456789abcdef").find(c);
    if (value == std::string_view::npos || digits == 2 * uuid.size()) {
      throw Error(ErrorKind::kFailed, "cannot load the guest", fmt::format("QEMU's uuid {} is not one", text));
    }
    uuid[digits / 2] = uuid[digits / 2] << 4 | static_cast<std::byte>(value);
    ++digits;
  }
  return uuid;
}

}  // namespace

SyncAt MultifdSyncAt(const QemuVersion& version) {
  const bool knows_flush = version.major > 8 || (version.major == 8 && version.minor >= 1);
  return knows_flush ? SyncAt::kFlush : SyncAt::kEverySection;
}

MultifdIncoming::MultifdIncoming(QmpClient& qmp, unsigned channels, const Interrupt& interrupt,
                                 const PrivateDirectory::Announce& announce)
    : qmp_(qmp),
      channels_(channels),
      interrupt_(interrupt),
      directory_(qmp, announce),
      socket_path_(directory_.Path(kSocketName)) {
  directory_.LetQemuIn();
}

void MultifdIncoming::Listen() {
  settings_.emplace(qmp_, std::set{std::string(kCapability)}, OnFailure::kLeave);
  settings_->SetParameter("multifd-channels", channels_);
  try {
    qmp_.Execute("migrate-incoming", {{"uri", "unix:" + socket_path_}});
  } catch (const QmpError& error) {
    throw Error(ErrorKind::kFailed, "cannot load the guest", error.what(), "use --via stream");
  }
}

void MultifdIncoming::Connect(const std::string& uuid) {
  Listen();
  MultifdHello hello{.uuid = ReadUuid(uuid)};
  for (unsigned i = 0; i <= channels_; ++i) {
    sockets_.push_back(ConnectOnce());
    CheckListener(sockets_.back());
    sinks_.emplace_back(sockets_.back(), interrupt_);
    if (i == 0) continue;
    hello.channel = static_cast<std::uint8_t>(i - 1);
    sinks_.back().Write(EncodeMultifdHello(hello));
  }
  ::unlink(socket_path_.c_str());
}

// Not blocking: with as many clients as QEMU has not come to yet it would wait for that, whatever the operator wants.
FileDescriptor MultifdIncoming::ConnectOnce() const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(&address.sun_path[0], socket_path_.data(), socket_path_.size());  // short enough: PrivateDirectory
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "migration socket");
  if (!socket.valid()) throw Error::FromErrno("cannot make a socket for the migration", errno);
  while (::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno != EAGAIN && errno != EINTR) throw Error::FromErrno("cannot connect to QEMU for the migration", errno);
    ::poll(nullptr, 0, kRetryMs);
    interrupt_.Check();
  }
  return socket;
}

// The pid of the process that listens. QMP's is 0 where QEMU's process cannot be seen from here, and then this is too.
void MultifdIncoming::CheckListener(const FileDescriptor& socket) const {
  const pid_t listener = PeerPid(socket);
  if (listener == qmp_.peer_pid()) return;
  throw Error(ErrorKind::kFailed, "cannot load the guest",
              fmt::format("process {} listens for it, but QMP is process {}'s", listener, qmp_.peer_pid()),
              "use --via stream");
}

MultifdTarget MultifdIncoming::target() {
  MultifdTarget target{sinks_.front(), {}, MultifdSyncAt(qmp_.version())};
  for (std::size_t i = 1; i < sinks_.size(); ++i) target.channels.push_back(&sinks_[i]);
  return target;
}

void MultifdIncoming::ShutDownSending() {
  ::shutdown(sockets_.front().number(), SHUT_WR);
}

}  // namespace vmsave
