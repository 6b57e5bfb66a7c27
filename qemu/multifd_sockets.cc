#include "qemu/multifd_sockets.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "format/bytes.h"
#include "format/multifd_packet.h"
#include "format/qemu_stream.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

constexpr std::string_view kSocketName = "migration";
constexpr std::string_view kCannotReceive = "cannot receive the guest's migration";
constexpr int kCheckMs = 100;
constexpr auto kConnectTimeout = std::chrono::seconds(30);

FileDescriptor Listen(const std::string& path) {
  FileDescriptor listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!listener.valid() || path.size() >= sizeof(address.sun_path)) {
    throw Error::FromErrno(kCannotReceive, listener.valid() ? ENAMETOOLONG : errno);
  }
  path.copy(address.sun_path, path.size());
  if (::bind(listener.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener.number(), SOMAXCONN) != 0) {
    throw Error::FromErrno(fmt::format("cannot listen on {}", path), errno);
  }
  return listener;
}

// The four bytes that tell a main stream from a channel. They stay unread.
std::uint32_t PeekMagic(const FileDescriptor& connection, const Interrupt& interrupt,
                        const std::function<void()>& check) {
  std::array<std::byte, 4> bytes{};
  const auto deadline = std::chrono::steady_clock::now() + kConnectTimeout;
  while (true) {
    const ssize_t got = ::recv(connection.number(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
    if (got == static_cast<ssize_t>(bytes.size())) return GetBigEndian<std::uint32_t>(bytes);
    if (got == 0) throw Error(ErrorKind::kFailed, kCannotReceive, "QEMU closed a connection that had just been made");
    if (got < 0 && errno != EAGAIN && errno != EINTR) throw Error::FromErrno(kCannotReceive, errno);
    if (std::chrono::steady_clock::now() > deadline) {
      throw Error(ErrorKind::kFailed, kCannotReceive, "QEMU made a connection and sends nothing");
    }
    if (!interrupt.WaitReadable(connection.number(), kCheckMs)) check();
  }
}

}  // namespace

MultifdListener::MultifdListener(const QmpClient& qmp)
    : qemu_(qmp.peer_pid()), directory_(qmp), socket_(Listen(directory_.Path(kSocketName))) {
  directory_.LetQemuIn(kSocketName);
}

std::string MultifdListener::uri() const {
  return "unix:" + directory_.Path(kSocketName);
}

MultifdSockets MultifdListener::Accept(unsigned channels, const Interrupt& interrupt,
                                       const std::function<void()>& check) {
  // All first: QEMU may send nothing on one before it has made the others.
  std::vector<FileDescriptor> connections;
  connections.reserve(channels + 1);
  while (connections.size() < channels + 1) connections.push_back(AcceptOne(interrupt, check));

  MultifdSockets sockets;
  sockets.channels.resize(channels);
  for (FileDescriptor& connection : connections) {
    if (PeekMagic(connection, interrupt, check) == kStreamMagic) {
      if (sockets.main.valid()) throw Error(ErrorKind::kDamaged, kCannotReceive, "there are two main streams");
      sockets.main = std::move(connection).Renamed("the guest's migration stream");
      continue;
    }
    std::array<std::byte, kMultifdHelloBytes> bytes{};
    SocketReader(connection, interrupt, check).ReadAll(bytes);
    const unsigned number = DecodeMultifdHello(bytes).channel;
    if (number >= channels) {
      throw Error(ErrorKind::kDamaged, kCannotReceive,
                  fmt::format("multifd channel {} is not one of 0 to {}", number, channels - 1));
    }
    if (sockets.channels[number].valid()) {
      throw Error(ErrorKind::kDamaged, kCannotReceive, fmt::format("multifd channel {} comes twice", number));
    }
    sockets.channels[number] = std::move(connection).Renamed(fmt::format("multifd channel {}", number));
  }
  if (!sockets.main.valid()) throw Error(ErrorKind::kDamaged, kCannotReceive, "there is no main stream");
  return sockets;
}

FileDescriptor MultifdListener::AcceptOne(const Interrupt& interrupt, const std::function<void()>& check) {
  const auto deadline = std::chrono::steady_clock::now() + kConnectTimeout;
  while (!interrupt.WaitReadable(socket_.number(), kCheckMs)) {
    check();
    if (std::chrono::steady_clock::now() > deadline) {
      throw Error(ErrorKind::kFailed, kCannotReceive, "QEMU does not make all the connections that it should",
                  "try --from stream");
    }
  }
  FileDescriptor connection(::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC), "a migration connection");
  if (!connection.valid()) throw Error::FromErrno(kCannotReceive, errno);
  CheckPeer(connection);
  return connection;
}

void MultifdListener::CheckPeer(const FileDescriptor& connection) const {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(connection.number(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    throw Error::FromErrno(kCannotReceive, errno);
  }
  if (qemu_ <= 0 || peer.pid <= 0 || peer.pid == qemu_) return;
  throw Error(ErrorKind::kFailed, kCannotReceive,
              fmt::format("process {} has connected, which is not the guest's QEMU ({})", peer.pid, qemu_));
}

}  // namespace vmsave
