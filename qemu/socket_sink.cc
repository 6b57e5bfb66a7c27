#include "qemu/socket_sink.h"

#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace vmsave {
namespace {

constexpr int kInterruptCheckMs = 200;

}  // namespace

void SocketSink::Write(std::span<const iovec> pieces) {
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

std::size_t SocketSink::WriteSome(std::span<iovec> pieces) {
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  while (true) {
    const ssize_t sent = ::sendmsg(socket_.number(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EPIPE || errno == ECONNRESET) {
      throw Error(ErrorKind::kFailed, "cannot load the guest", "QEMU gave up while it was sent the image",
                  "QEMU's own message says why");
    }
    if (errno != EAGAIN && errno != EINTR) throw Error::FromErrno("cannot send the image to QEMU", errno);
    pollfd poller{socket_.number(), POLLOUT, 0};
    ::poll(&poller, 1, kInterruptCheckMs);
    interrupt_.Check();
    check_();
  }
}

}  // namespace vmsave
