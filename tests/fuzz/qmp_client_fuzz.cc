// What a QMP socket answers: the input's lines, each as the answer to one command. "@" stands for the command's id.
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "qemu/guest_facts.h"
#include "qemu/guest_ram.h"
#include "qemu/migration_status.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

using std::chrono::milliseconds;

// One for all inputs: making a socket takes longer than what is tried here.
class Listener {
 public:
  Listener() : directory_(std::filesystem::temp_directory_path()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    Require(path().size() < sizeof(address.sun_path));
    std::memcpy(&address.sun_path[0], path().data(), path().size());
    Require(::bind(socket_.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    Require(::listen(socket_.number(), 1) == 0);
  }

  std::string path() const { return directory_.Path("qmp"); }

  FileDescriptor Accept() const { return {::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC), "connection"}; }

 private:
  ScratchDirectory directory_;
  FileDescriptor socket_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "listener"};
};

class Peer {
 public:
  Peer(FileDescriptor socket, std::string_view script) : socket_(std::move(socket)), script_(script) {
    const timeval patience{0, 20'000};
    Require(::setsockopt(socket_.number(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
  }

  // Greets unasked, then answers until the script is at its end, or the client has gone.
  void Run() {
    std::string id = "0";
    do {
      if (!Say(NextLine(), id)) return;
    } while (!script_.empty() && Hear(id));
  }

 private:
  // The line's end is said too, where there is one.
  std::string_view NextLine() {
    const std::size_t length = std::min(script_.find('\n'), script_.size() - 1) + 1;
    const std::string_view line = script_.substr(0, length);
    script_.remove_prefix(length);
    return line;
  }

  bool Say(std::string_view line, const std::string& id) const {
    std::string text;
    for (const char c : line) c == '@' ? text += id : text += c;
    return ::send(socket_.number(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }

  // False where the client has gone. One that asks nothing waits for another answer: it gets the next line.
  bool Hear(std::string& id) const {
    std::string request;
    std::array<char, 1024> piece{};
    while (!request.ends_with('\n')) {
      const ssize_t count = ::recv(socket_.number(), piece.data(), piece.size(), 0);
      if (count < 0 && errno == EAGAIN) return true;
      if (count <= 0) return false;
      request.append(piece.data(), static_cast<std::size_t>(count));
    }
    const std::size_t last = request.rfind("\"id\":");
    if (last != std::string::npos) id = request.substr(last + 5, request.find('}', last) - last - 5);
    return true;
  }

  FileDescriptor socket_;
  std::string_view script_;
};

void Ask(QmpClient& qmp, unsigned what) {
  switch (what % 8) {
    case 0:
      Succeeds([&] { QueryMigration(qmp); });
      break;
    case 1:
      Succeeds([&] { MakeDescription(QueryGuest(qmp)); });
      break;
    case 2:
      Succeeds([&] { WhyNotShared(QueryMemoryBackends(qmp)); });
      break;
    case 3:
      Succeeds([&] { IsMigrationGone(qmp); });
      break;
    case 4:
      Succeeds([&] { qmp.ExecuteHmp("info mtree -f"); });
      break;
    case 5:
      Succeeds([&] { qmp.WaitEvent("STOP", milliseconds(0)); });
      break;
    case 6:
      Succeeds([&] { MapBackends(qmp, QueryMemoryBackends(qmp), MemoryMapping::Access::kRead); });
      break;
    default:
      Succeeds([&] { qmp.WaitClosed(milliseconds(0)); });
  }
  Succeeds([&] {
    for (const QmpClient::Json& event : qmp.TakeEvents()) EventTime(event);
  });
}

void Talk(const Listener& listener, unsigned what, std::string_view script) {
  const Interrupt interrupt;
  std::jthread peer([&] { Peer(listener.Accept(), script).Run(); });
  Succeeds([&] {
    constexpr milliseconds kPatience{200};  // the peer closes the connection when it has nothing more to say
    QmpClient qmp(listener.path(), interrupt, kPatience, milliseconds(0));
    qmp.SetTimeout(kPatience);
    for (int round = 0; round < 4 && !qmp.closed(); ++round) Ask(qmp, what);
  });
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vmsave::Listener listener;
  const vmsave::FuzzInput input(data, size);
  if (input.bytes.empty()) return 0;
  const std::string script(reinterpret_cast<const char*>(input.bytes.data()), input.bytes.size());
  vmsave::Talk(listener, input.choice, script);
  return 0;
}
