#include "qemu/kept_serving.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "io/descriptor_message.h"

namespace vmsave {
namespace {

constexpr int kPatienceMs = 10'000;
constexpr std::size_t kMaxRecordBytes = std::size_t{128} << 10;
constexpr std::string_view kTaken = "taken";

// Abstract: nothing to remove, and gone with its process. Anybody may have made it, so that both ends look who the
// other is.
struct Address {
  sockaddr_un address{};
  socklen_t length = 0;

  explicit Address(pid_t qemu) {
    const std::string name = fmt::format("vmsave-kept-{}", qemu);
    address.sun_family = AF_UNIX;
    name.copy(&address.sun_path[1], name.size());
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

FileDescriptor MakeSocket() {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "the kept connection to QEMU");
  if (!socket.valid()) throw Error::FromErrno("cannot make a socket for a recovery", errno);
  return socket;
}

bool IsOursOrRoots(const FileDescriptor& socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket.number(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

bool AwaitReadable(const FileDescriptor& socket) {
  pollfd poller{socket.number(), POLLIN, 0};
  return ::poll(&poller, 1, kPatienceMs) > 0;
}

bool SendText(const FileDescriptor& socket, std::string_view text, int descriptor) {
  std::array<iovec, 1> part{iovec{const_cast<char*>(text.data()), text.size()}};
  return SendWithDescriptor(socket.number(), part, descriptor) == static_cast<ssize_t>(text.size());
}

std::optional<DescriptorMessage> ReceiveText(const FileDescriptor& socket) {
  std::vector<char> room(kMaxRecordBytes);
  if (!AwaitReadable(socket)) return std::nullopt;
  return ReceiveWithDescriptor(socket, room);
}

// Until the other process says that it has it, it is still ours to keep.
bool HandOver(const KeptServing& kept, const FileDescriptor& socket) {
  if (!IsOursOrRoots(socket) || !SendText(socket, EncodeRestoreRecord(kept.record), kept.qmp.number()) ||
      !SendText(socket, "spare", kept.spare.valid() ? kept.spare.number() : -1)) {
    return false;
  }
  const std::optional<DescriptorMessage> answer = ReceiveText(socket);
  return answer && answer->text == kTaken;
}

bool HasEnded(const FileDescriptor& qmp) {
  std::array<char, 65536> passed_over;
  return ::recv(qmp.number(), passed_over.data(), passed_over.size(), MSG_DONTWAIT) == 0;
}

}  // namespace

KeptEnd KeepUntilTaken(const KeptServing& kept, pid_t qemu) {
  const Address address(qemu);
  const FileDescriptor listener = MakeSocket();
  if (::bind(listener.number(), address.get(), address.length) != 0 || ::listen(listener.number(), 1) != 0) {
    throw Error::FromErrno("cannot keep the connection to QEMU for a recovery", errno);
  }
  while (true) {
    std::array<pollfd, 2> set{pollfd{listener.number(), POLLIN, 0}, pollfd{kept.qmp.number(), POLLIN, 0}};
    if (::poll(set.data(), set.size(), -1) < 0 && errno != EINTR) throw Error::FromErrno("cannot wait", errno);
    if (set[1].revents != 0 && HasEnded(kept.qmp)) return KeptEnd::kQemuEnded;
    if (set[0].revents == 0) continue;
    const FileDescriptor socket(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC), "a recovery");
    if (socket.valid() && HandOver(kept, socket)) return KeptEnd::kTaken;
  }
}

std::optional<KeptServing> TakeKept(pid_t qemu) {
  const Address address(qemu);
  const FileDescriptor socket = MakeSocket();
  if (::connect(socket.number(), address.get(), address.length) != 0) return std::nullopt;
  if (!IsOursOrRoots(socket)) {
    throw Error(ErrorKind::kFailed, "cannot take over the connection to the guest", "another user keeps it",
                "run as that user, or as root");
  }
  std::optional<DescriptorMessage> record = ReceiveText(socket);
  std::optional<DescriptorMessage> spare = ReceiveText(socket);
  if (!record || !record->descriptor.valid() || !spare) return std::nullopt;
  KeptServing kept{DecodeRestoreRecord(record->text), std::move(record->descriptor), std::move(spare->descriptor)};
  if (!kept.record.serving || !SendText(socket, kTaken, -1)) return std::nullopt;
  return kept;
}

}  // namespace vmsave
