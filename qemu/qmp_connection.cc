#include "qemu/qmp_connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "io/descriptor_message.h"
#include "io/held_process.h"

namespace vmsave {
namespace {

// QEMU's largest replies (query-qmp-schema, a memory tree of a guest with many devices) are far below 1 MiB.
constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;

Error ConnectError(const std::string& path, int error_number) {
  const std::string what_failed = fmt::format("cannot connect to the guest at {}", path);
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (exists && !S_ISSOCK(status.st_mode)) {
    return Error(ErrorKind::kFailed, what_failed, "it is not a socket",
                 "name the socket of QEMU's -qmp unix:PATH,server=on,wait=off");
  }
  switch (error_number) {
    case ENOENT:
      return Error(ErrorKind::kFailed, what_failed, "there is no such socket",
                   "start QEMU with -qmp unix:PATH,server=on,wait=off, and name that path");
    case ECONNREFUSED:
      return Error(ErrorKind::kFailed, what_failed, "nobody listens on that socket", "has the guest ended?");
    case EAGAIN:
      return Error(ErrorKind::kFailed, what_failed, "other clients hold the QMP socket and wait for it",
                   kAddQmpSocketAdvice);
    case EPROTOTYPE:
      return Error(ErrorKind::kFailed, what_failed, "it is not a QMP socket (not a stream)");
    case EACCES:
    case EPERM:
      return Error::FromErrno(what_failed, error_number, "run as the user of QEMU, or as root");
    default:
      return Error::FromErrno(what_failed, error_number);
  }
}

// The kernel takes only sizeof(sun_path) bytes. A longer path is reached through a descriptor of its directory, which
// `directory` keeps open.
sockaddr_un AddressOf(const std::string& path, FileDescriptor& directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string name = path;
  if (name.size() >= sizeof(address.sun_path)) {
    const std::size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    directory = OpenFile(folder, O_PATH | O_DIRECTORY);
    name = fmt::format("/proc/self/fd/{}/{}", directory.number(),
                       slash == std::string::npos ? path : path.substr(slash + 1));
  }
  if (name.size() >= sizeof(address.sun_path)) {
    throw Error(ErrorKind::kUsage, fmt::format("cannot connect to the guest at {}", path),
                "the name of the socket is too long");
  }
  std::memcpy(&address.sun_path[0], name.data(), name.size());
  return address;
}

// Not blocking, connect included: with a full queue of waiting clients it would wait for as long as they do.
FileDescriptor Connect(const std::string& path) {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), path);
  if (!socket.valid()) throw Error::FromErrno("cannot make a socket", errno);
  FileDescriptor directory;
  const sockaddr_un address = AddressOf(path, directory);
  if (::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw ConnectError(path, errno);
  }
  return socket;
}

}  // namespace

std::chrono::steady_clock::time_point DeadlineIn(std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kYear = std::chrono::hours(24 * 365);
  return std::chrono::steady_clock::now() + std::clamp(timeout, std::chrono::milliseconds(0), kYear);
}

Error QmpClosedError(std::string_view what_failed) {
  return Error(ErrorKind::kFailed, what_failed, "QEMU closed the connection", "has the guest ended?");
}

QmpConnection::QmpConnection(const std::string& socket_path) : socket_(Connect(socket_path)) {}

QmpConnection::QmpConnection(const FileDescriptor& connection, const std::string& socket_path)
    : socket_(::fcntl(connection.number(), F_DUPFD_CLOEXEC, 0), socket_path) {
  if (!socket_.valid())
    throw Error::FromErrno(fmt::format("cannot take over the connection to {}", socket_path), errno);
}

void QmpConnection::Send(std::string_view line, int descriptor, std::chrono::milliseconds timeout,
                         std::string_view what_failed) {
  if (closed_) throw QmpClosedError(what_failed);
  const Clock::time_point deadline = DeadlineIn(timeout);
  std::string_view rest = line;
  while (!rest.empty()) {
    std::array<iovec, 1> part{iovec{const_cast<char*>(rest.data()), rest.size()}};
    const ssize_t sent = SendWithDescriptor(socket_.number(), part, descriptor);
    if (sent >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(sent));
      descriptor = -1;
    } else if (errno == EPIPE || errno == ECONNRESET) {
      closed_ = true;
      throw QmpClosedError(what_failed);
    } else if (errno == EAGAIN) {
      if (WaitSocket(POLLOUT, deadline, /*interrupt=*/nullptr)) continue;
      closed_ = rest.size() < line.size();  // a request that broke off cannot be mended
      throw Error(ErrorKind::kFailed, what_failed, fmt::format("QEMU reads nothing for {} ms", timeout.count()),
                  "is QEMU stopped or overloaded?");
    } else if (errno != EINTR) {
      throw Error::FromErrno(what_failed, errno);
    }
  }
}

std::optional<std::string> QmpConnection::ReadLine(Clock::time_point deadline, const Interrupt* interrupt) {
  std::optional<std::string> line = TakeLine();
  bool late = false;
  while (!line && !closed_ && !late) {
    late = Clock::now() >= deadline;
    if (!WaitSocket(POLLIN, deadline, interrupt)) break;
    Receive();
    line = TakeLine();
  }
  return line;
}

bool QmpConnection::TimeIsUp(Clock::time_point deadline) const {
  return Clock::now() >= deadline && received_.find('\n', searched_) == std::string::npos;
}

bool QmpConnection::WaitSocket(short events, Clock::time_point deadline, const Interrupt* interrupt) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const auto wait_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
    std::array<pollfd, 2> set{pollfd{socket_.number(), events, 0},
                              pollfd{interrupt != nullptr ? interrupt->descriptor() : -1, POLLIN, 0}};
    const int ready = ::poll(set.data(), set.size(), wait_ms);
    if (ready < 0 && errno != EINTR) throw Error::FromErrno("cannot wait for the guest", errno);
    if (interrupt != nullptr) interrupt->Check();
    if (ready > 0) return true;
    if (Clock::now() >= deadline) return false;
  }
}

void QmpConnection::Receive() {
  std::array<char, 65536> chunk;
  const ssize_t count = ::recv(socket_.number(), chunk.data(), chunk.size(), 0);
  if (count > 0) {
    received_.append(chunk.data(), static_cast<std::size_t>(count));
  } else if (count == 0 || errno == ECONNRESET) {
    closed_ = true;
  } else if (errno != EINTR && errno != EAGAIN) {
    throw Error::FromErrno(fmt::format("cannot read from the guest at {}", socket_.name()), errno);
  }
}

// The first whole line of what was received.
std::optional<std::string> QmpConnection::TakeLine() {
  const std::size_t end = received_.find('\n', searched_);
  if ((end == std::string::npos ? received_.size() : end) > kMaxLineBytes) {
    closed_ = true;
    received_.clear();
    throw Error(ErrorKind::kFailed, fmt::format("cannot talk to the guest at {}", socket_.name()),
                fmt::format("it sent a line of more than {} MiB, which QEMU does not do", kMaxLineBytes >> 20));
  }
  if (end == std::string::npos) {
    searched_ = received_.size();
    return std::nullopt;
  }
  std::string line = received_.substr(0, end);
  received_.erase(0, end + 1);
  searched_ = 0;
  return line;
}

pid_t QmpConnection::peer_pid() const {
  return PeerPid(socket_);
}

}  // namespace vmsave
