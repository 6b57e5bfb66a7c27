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
#include "io/held_process.h"
#include "qemu/save_guard.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

constexpr std::string_view kSocketName = "migration";
constexpr std::string_view kCannotReceive = "cannot receive the guest's migration";
constexpr int kCheckMs = 100;

using Clock = std::chrono::steady_clock;
using Check = std::function<void()>;

// What keeps QEMU from the socket may show only when it tries: a security module, a namespace.
Error CannotReceive(std::string_view why) {
  return Error(ErrorKind::kFailed, kCannotReceive, why, "try --from stream");
}

// As `check`, but gives up at the deadline.
Check Until(Clock::time_point deadline, const Check& check, std::string_view why) {
  return [=, &check] {
    try {
      check();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInterrupted) throw;
      throw CannotReceive(error.why());
    }
    if (Clock::now() > deadline) throw CannotReceive(why);
  };
}

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
std::uint32_t PeekMagic(const FileDescriptor& connection, const Interrupt& interrupt, const Check& check) {
  constexpr int kNoDescriptor = -1;
  std::array<std::byte, 4> bytes{};
  while (true) {
    const bool closed = IsClosedByPeer(connection);
    const ssize_t got = ::recv(connection.number(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
    if (got == static_cast<ssize_t>(bytes.size())) return GetBigEndian<std::uint32_t>(bytes);
    if (got < 0 && errno != EAGAIN && errno != EINTR) throw Error::FromErrno(kCannotReceive, errno);
    if (closed) throw CannotReceive("QEMU closed a connection that had just been made");
    // With a part of the bytes there the socket is readable all the time.
    if (!interrupt.WaitReadable(got > 0 ? kNoDescriptor : connection.number(), kCheckMs)) check();
  }
}

}  // namespace

MultifdListener::MultifdListener(const QmpClient& qmp, SaveGuard* guard, std::chrono::milliseconds patience)
    : qemu_(qmp.peer_pid()),
      guard_(guard),
      patience_(patience),
      directory_(qmp, guard == nullptr ? PrivateDirectory::Announce() : guard->AnnounceDirectory()),
      socket_(Listen(directory_.Path(kSocketName))) {
  directory_.LetQemuIn(kSocketName);
}

std::string MultifdListener::UriFor(unsigned channels) {
  channels_ = channels;
  if (guard_ != nullptr) guard_->AcceptOn(socket_, channels + 1);
  return "unix:" + directory_.Path(kSocketName);
}

MultifdSockets MultifdListener::Accept(const Interrupt& interrupt, const Check& check) {
  // All first: QEMU may send nothing on one before it has made the others.
  const Check until_made =
      Until(Clock::now() + patience_, check, "QEMU does not make all the connections that it should");
  while (connections_.size() < channels_ + 1) connections_.push_back(AcceptOne(interrupt, until_made));

  const Check until_said = Until(Clock::now() + patience_, check, "QEMU made a connection and does not say for what");
  sockets_.channels.resize(channels_);
  for (FileDescriptor& connection : connections_) {
    if (PeekMagic(connection, interrupt, until_said) == kStreamMagic) {
      if (sockets_.main.valid()) throw Error(ErrorKind::kDamaged, kCannotReceive, "there are two main streams");
      sockets_.main = std::move(connection).Renamed("the guest's migration stream");
      continue;
    }
    std::array<std::byte, kMultifdHelloBytes> bytes{};
    SocketReader(connection, interrupt, until_said).ReadAll(bytes);
    const unsigned number = DecodeMultifdHello(bytes).channel;
    if (number >= channels_) {
      throw Error(ErrorKind::kDamaged, kCannotReceive,
                  fmt::format("multifd channel {} is not one of 0 to {}", number, channels_ - 1));
    }
    if (sockets_.channels[number].valid()) {
      throw Error(ErrorKind::kDamaged, kCannotReceive, fmt::format("multifd channel {} comes twice", number));
    }
    sockets_.channels[number] = std::move(connection).Renamed(fmt::format("multifd channel {}", number));
  }
  return std::move(sockets_);  // one more than there are channels, and none comes twice: the main stream is there
}

FileDescriptor MultifdListener::AcceptOne(const Interrupt& interrupt, const Check& check) {
  FileDescriptor connection = Accepted(interrupt, check).Renamed("a migration connection");
  if (!connection.valid()) throw Error::FromErrno(kCannotReceive, errno);
  CheckPeer(connection);
  return connection;
}

// By the guard, where there is one; else here.
FileDescriptor MultifdListener::Accepted(const Interrupt& interrupt, const std::function<void()>& check) {
  while (guard_ != nullptr && !guard_->gone()) {
    if (!interrupt.WaitReadable(guard_->connections(), kCheckMs)) {
      check();
    } else if (std::optional<FileDescriptor> connection = guard_->TakeConnection()) {
      return *std::move(connection);
    }
  }
  while (!interrupt.WaitReadable(socket_.number(), kCheckMs)) check();
  return {::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC), ""};
}

void MultifdListener::CheckPeer(const FileDescriptor& connection) const {
  const pid_t peer = PeerPid(connection);
  if (qemu_ <= 0 || peer <= 0 || peer == qemu_) return;
  throw CannotReceive(fmt::format("process {} has connected, which is not the guest's QEMU ({})", peer, qemu_));
}

}  // namespace vmsave
