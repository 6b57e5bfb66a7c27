#include "qemu/kept_serving.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <thread>

#include "io/descriptor_message.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

constexpr int kPatienceMs = 10'000;
constexpr std::size_t kMaxRecordBytes = std::size_t{128} << 10;
constexpr std::string_view kEnd = "end";  // of the spares
constexpr std::string_view kTaken = "taken";
constexpr std::string_view kYours = "yours";  // the answer to that
constexpr int kConnectTries = 20;             // while one that ends still has the name
constexpr std::chrono::milliseconds kBetweenTries{100};

struct stat LookAt(const std::string& qmp_socket) {
  struct stat status {};
  if (::stat(qmp_socket.c_str(), &status) != 0) {
    throw Error::FromErrno(fmt::format("cannot look at {}", qmp_socket), errno);
  }
  return status;
}

// Abstract: nothing to remove, and gone with its process. Anybody may have made it, so that both ends look at what the
// other is.
std::string NameFor(const struct stat& socket) {
  return fmt::format("vmsave-kept-{:x}-{:x}", socket.st_dev, socket.st_ino);
}

struct Address {
  explicit Address(const std::string& name) {
    address.sun_family = AF_UNIX;
    name.copy(&address.sun_path[1], name.size());
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }

  sockaddr_un address{};
  socklen_t length = 0;
};

FileDescriptor MakeSocket() {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "a recovery's socket");
  if (!socket.valid()) throw Error::FromErrno("cannot make a socket for a recovery", errno);
  return socket;
}

std::optional<uid_t> UserOfPeer(const FileDescriptor& socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket.number(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return std::nullopt;
  return peer.uid;
}

bool SendText(const FileDescriptor& socket, std::string_view text, int descriptor = -1) {
  std::array<iovec, 1> part{iovec{const_cast<char*>(text.data()), text.size()}};
  return SendWithDescriptor(socket.number(), part, descriptor) == static_cast<ssize_t>(text.size());
}

std::optional<DescriptorMessage> Receive(const FileDescriptor& socket) {
  std::vector<char> room(kMaxRecordBytes);
  pollfd poller{socket.number(), POLLIN, 0};
  if (::poll(&poller, 1, kPatienceMs) <= 0) return std::nullopt;
  return ReceiveWithDescriptor(socket, room);
}

// Until the other process says that it has it, it is still ours to keep.
bool HandOver(const KeptServing& kept, const FileDescriptor& socket) {
  const std::optional<uid_t> user = UserOfPeer(socket);
  if (user != ::geteuid() && user != 0) return false;
  if (!SendText(socket, EncodeRestoreRecord(kept.record), kept.qmp.number())) return false;
  for (const SpareChannel& spare : kept.spares) {
    if (!SendText(socket, spare.name, spare.socket.number())) return false;
  }
  if (!SendText(socket, kEnd)) return false;
  const std::optional<DescriptorMessage> answer = Receive(socket);
  return answer && answer->text == kTaken;
}

// What QEMU says is passed over: else it would say no more.
bool HasEnded(const FileDescriptor& qmp) {
  std::array<char, 65536> passed_over;
  const ssize_t count = ::recv(qmp.number(), passed_over.data(), passed_over.size(), MSG_DONTWAIT);
  return count == 0 || (count < 0 && errno == ECONNRESET);
}

RestoreRecord Decode(const std::string& text) {
  try {
    RestoreRecord record = DecodeRestoreRecord(text);
    if (record.serving) return record;
  } catch (const std::exception&) {
    // told below
  }
  throw Error(ErrorKind::kFailed, "cannot take over the connection to the guest",
              "the process that keeps it is of another version", "use that version's vmrestore");
}

// To the process that has the name; not valid where there is none, or it is of a user who could not have it.
FileDescriptor ConnectToKeeper(const std::string& name, uid_t owner) {
  const Address address(name);
  FileDescriptor socket = MakeSocket();
  if (::connect(socket.number(), address.get(), address.length) != 0) return {};
  const std::optional<uid_t> user = UserOfPeer(socket);
  if (user != 0 && user != ::geteuid() && user != owner) return {};
  return socket;
}

// Nothing where the other end has not sent all of it.
std::optional<KeptServing> ReceiveKept(const FileDescriptor& socket) {
  std::optional<DescriptorMessage> message = Receive(socket);
  if (!message || !message->descriptor.valid()) return std::nullopt;
  KeptServing kept{.record = Decode(message->text), .qmp = std::move(message->descriptor)};
  while ((message = Receive(socket)) && message->text != kEnd) {
    if (message->descriptor.valid()) kept.spares.push_back({std::move(message->text), std::move(message->descriptor)});
  }
  if (!message) return std::nullopt;
  return kept;
}

// Nothing where there is no keeper. One that has just let go still has the name for a moment, and the next one not yet.
std::optional<KeptServing> AskKeeper(const std::string& name, uid_t owner) {
  bool was_there = false;
  for (int i = 0; i < kConnectTries; ++i) {
    FileDescriptor socket = ConnectToKeeper(name, owner);
    was_there |= socket.valid();
    if (!was_there) return std::nullopt;
    std::optional<KeptServing> kept = socket.valid() ? ReceiveKept(socket) : std::nullopt;
    if (kept) {
      kept->hand_over = std::move(socket);
      return kept;
    }
    std::this_thread::sleep_for(kBetweenTries);
  }
  return std::nullopt;
}

}  // namespace

QmpClient Reconnect(const KeptServing& kept, const Interrupt& interrupt) {
  const QmpBand band = kept.record.serving->out_of_band ? QmpBand::kOut : QmpBand::kIn;
  return {kept.qmp, kept.record.qmp_socket, interrupt, band};
}

KeptListener::KeptListener(const std::string& qmp_socket) : qmp_socket_(qmp_socket) {
  const struct stat status = LookAt(qmp_socket);
  name_ = NameFor(status);
  owner_ = status.st_uid;
  TryToListen();
}

void KeptListener::TryToListen() {
  const Address address(name_);
  FileDescriptor socket = MakeSocket();
  const bool listens = ::bind(socket.number(), address.get(), address.length) == 0 && ::listen(socket.number(), 1) == 0;
  if (listens) socket_ = std::move(socket);
}

KeptEnd KeptListener::KeepUntilTaken(const KeptServing& kept, const std::function<void()>& on_listening) {
  while (!socket_.valid()) {
    if (IsKeptByAnother()) return KeptEnd::kKeptByAnother;
    if (IsClosedByPeer(kept.qmp)) return KeptEnd::kQemuEnded;
    TryToListen();
    if (!socket_.valid()) std::this_thread::sleep_for(kBetweenTries);
  }
  on_listening();
  while (true) {
    std::array<pollfd, 2> set{pollfd{kept.qmp.number(), POLLIN, 0}, pollfd{socket_.number(), POLLIN, 0}};
    if (::poll(set.data(), set.size(), -1) < 0 && errno != EINTR) {
      throw Error::FromErrno("cannot wait for a recovery", errno);
    }
    if (set[0].revents != 0 && HasEnded(kept.qmp)) return KeptEnd::kQemuEnded;
    if (set[1].revents == 0) continue;
    const FileDescriptor socket(::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC), "a recovery");
    if (!socket.valid() || !HandOver(kept, socket)) continue;
    socket_.Close();
    SendText(socket, kYours);
    return KeptEnd::kTaken;
  }
}

// One that is about to end hands nothing over any more.
bool KeptListener::IsKeptByAnother() const {
  const FileDescriptor socket = ConnectToKeeper(name_, owner_);
  if (!socket.valid()) return false;
  try {
    const std::optional<KeptServing> kept = ReceiveKept(socket);
    return kept && kept->record.qmp_socket == qmp_socket_;
  } catch (const Error&) {
    return false;  // another version's, which keeps something else
  }
}

std::optional<KeptServing> TakeKept(const std::string& qmp_socket,
                                    const std::function<void(const KeptServing&)>& hold) {
  const struct stat status = LookAt(qmp_socket);
  std::optional<KeptServing> kept = AskKeeper(NameFor(status), status.st_uid);
  if (!kept) return std::nullopt;
  hold(*kept);
  if (FinishTaking(kept->hand_over)) return kept;
  throw Error(ErrorKind::kFailed, "cannot take over the connection to the guest",
              "the process that keeps it does not answer", "try again");
}

// Told twice is no harm: where the other process has gone, its answer may lie there already.
bool FinishTaking(const FileDescriptor& hand_over) {
  SendText(hand_over, kTaken);
  const std::optional<DescriptorMessage> answer = Receive(hand_over);
  return answer && answer->text == kYours;
}

}  // namespace vmsave
