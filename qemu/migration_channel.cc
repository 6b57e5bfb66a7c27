#include "qemu/migration_channel.h"

#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace vmsave {
namespace {

constexpr std::string_view kDescriptorName = "vmsave-migration";
constexpr int kInterruptCheckMs = 200;

}  // namespace

MigrationChannel::MigrationChannel(QmpClient& qmp) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error::FromErrno("cannot make a socket for the migration", errno);
  }
  socket_ = FileDescriptor(ends[0], "the guest's migration stream");
  const FileDescriptor for_qemu(ends[1], "migration socket");
  qmp.Execute("getfd", {{"fdname", kDescriptorName}}, for_qemu.number());
}

std::string MigrationChannel::uri() const {
  return "fd:" + std::string(kDescriptorName);
}

void MigrationChannel::ShutDownSending() {
  ::shutdown(socket_.number(), SHUT_WR);
}

void MigrationChannel::ShutDown() {
  ::shutdown(socket_.number(), SHUT_RDWR);
}

void ChannelSink::Write(std::span<const iovec> pieces) {
  rest_.assign(pieces.begin(), pieces.end());
  std::span<iovec> rest(rest_);
  while (!rest.empty()) {
    std::size_t sent = WriteSome(rest.first(std::min<std::size_t>(rest.size(), IOV_MAX)));
    while (!rest.empty() && sent >= rest.front().iov_len) {
      sent -= rest.front().iov_len;
      rest = rest.subspan(1);
    }
    if (sent == 0) continue;
    rest.front().iov_base = static_cast<std::byte*>(rest.front().iov_base) + sent;
    rest.front().iov_len -= sent;
  }
}

std::size_t ChannelSink::WriteSome(std::span<iovec> pieces) {
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  while (true) {
    const ssize_t sent = ::sendmsg(channel_.socket().number(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EPIPE || errno == ECONNRESET) {
      throw Error(ErrorKind::kFailed, "cannot load the guest", "QEMU gave up while it was sent the image",
                  "QEMU's own message says why");
    }
    if (errno != EAGAIN && errno != EINTR) throw Error::FromErrno("cannot send the image to QEMU", errno);
    pollfd poller{channel_.socket().number(), POLLOUT, 0};
    ::poll(&poller, 1, kInterruptCheckMs);
    interrupt_.Check();
  }
}

}  // namespace vmsave
