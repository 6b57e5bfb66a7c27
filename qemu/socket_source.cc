#include "qemu/socket_source.h"

#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace vmsave {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{256} * 1024;  // stays in the cache
constexpr int kCheckMs = 100;

}  // namespace

SocketReader::SocketReader(const FileDescriptor& socket, const Interrupt& interrupt, Check check)
    : socket_(socket), interrupt_(interrupt), check_(std::move(check)) {}

std::size_t SocketReader::ReadSome(std::span<std::byte> out) {
  const iovec piece{out.data(), out.size()};
  return Receive(std::span(&piece, 1));
}

void SocketReader::ReadAll(std::span<const iovec> pieces) {
  rest_.assign(pieces.begin(), pieces.end());
  std::span<iovec> rest(rest_);
  while (!rest.empty()) {
    std::size_t got = Receive(rest.first(std::min<std::size_t>(rest.size(), IOV_MAX)));
    if (got == 0) EndsEarly();
    while (!rest.empty() && got >= rest.front().iov_len) {
      got -= rest.front().iov_len;
      rest = rest.subspan(1);
    }
    if (got == 0) continue;
    rest.front().iov_base = static_cast<std::byte*>(rest.front().iov_base) + got;
    rest.front().iov_len -= got;
  }
}

void SocketReader::ReadAll(std::span<std::byte> out) {
  if (!ReadAllOrEnd(out)) EndsEarly();
}

bool SocketReader::ReadAllOrEnd(std::span<std::byte> out) {
  const std::size_t first = ReadSome(out);
  if (first == 0) return false;
  out = out.subspan(first);
  while (!out.empty()) {
    const std::size_t got = ReadSome(out);
    if (got == 0) EndsEarly();
    out = out.subspan(got);
  }
  return true;
}

// Asks first and waits only where nothing is there: a busy socket costs one call, not two.
std::size_t SocketReader::Receive(std::span<const iovec> pieces) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());  // recvmsg(2) leaves it as it is
  message.msg_iovlen = pieces.size();
  while (true) {
    const ssize_t got = ::recvmsg(socket_.number(), &message, MSG_DONTWAIT);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == ECONNRESET) return 0;  // closed with something unread on the other side
    if (errno != EAGAIN && errno != EINTR) throw Error::FromErrno(fmt::format("cannot read {}", name()), errno);
    if (!interrupt_.WaitReadable(socket_.number(), kCheckMs)) check_();
  }
}

void SocketReader::EndsEarly() const {
  throw Error(ErrorKind::kDamaged, fmt::format("cannot read {}", name()), "it ends early");
}

bool IsClosedByPeer(const FileDescriptor& socket) {
  pollfd poller{socket.number(), POLLRDHUP, 0};
  return ::poll(&poller, 1, 0) > 0;
}

SocketSource::SocketSource(SocketReader& reader) : reader_(reader), buffer_(kBufferBytes) {}

std::size_t SocketSource::ReadSome(std::span<std::byte> out) {
  if (ready_.empty()) ready_ = std::span(buffer_).first(reader_.ReadSome(buffer_));
  const std::size_t count = std::min(out.size(), ready_.size());
  std::copy_n(ready_.begin(), count, out.begin());
  ready_ = ready_.subspan(count);
  position_ += ByteCount{count};
  return count;
}

void SocketSource::StepBack() {
  ready_ = {ready_.data() - 1, ready_.size() + 1};
  position_ = FileOffset{position_.value() - 1};
}

}  // namespace vmsave
