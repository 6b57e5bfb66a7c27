// The other end of a QMP socket, as a test scripts it.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "io/file_descriptor.h"
#include "qemu/qmp_client.h"
#include "tests/qemu/running_qemu.h"

namespace vmsave {

inline constexpr const char* kGreeting =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": []}})"
    "\r\n";

inline FileDescriptor Listen(const std::string& path, int backlog = 4) {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(&address.sun_path[0], path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
  EXPECT_EQ(::bind(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(socket.number(), backlog), 0);
  return socket;
}

// One connection.
class Connection {
 public:
  explicit Connection(FileDescriptor socket) : socket_(std::move(socket)) {}

  void Say(const std::string& text) const {
    std::string_view rest = text;
    while (!rest.empty()) {
      const ssize_t sent = ::send(socket_.number(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent < 0) return;  // the client has had enough
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  // The next request, discarded when the client has gone.
  QmpClient::Json Hear() const {
    std::string line;
    char c = 0;
    while (::recv(socket_.number(), &c, 1, 0) == 1 && c != '\n') line += c;
    return QmpClient::Json::parse(line, nullptr, false);
  }

  static std::string Answer(const QmpClient::Json& request, const std::string& value = "{}") {
    return fmt::format("{{\"return\": {}, \"id\": {}}}\r\n", value, request["id"].get<std::uint64_t>());
  }

  // Greets and answers qmp_capabilities.
  void Welcome() const {
    Say(kGreeting);
    Say(Answer(Hear()));
  }

  void WaitUntilGone() const {
    char c = 0;
    while (::recv(socket_.number(), &c, 1, 0) == 1) {
    }
  }

  int socket() const { return socket_.number(); }

 private:
  FileDescriptor socket_;
};

// Serves one connection after the other, each with a script of its own, and closes it.
class ScriptedPeer {
 public:
  using Script = std::function<void(Connection&)>;

  explicit ScriptedPeer(Script script) : ScriptedPeer(std::vector<Script>{std::move(script)}) {}
  explicit ScriptedPeer(std::vector<Script> scripts)
      : path_(directory_.Path("qmp.sock")), listener_(Listen(path_)), thread_([this, scripts = std::move(scripts)] {
          for (const Script& script : scripts) {
            Connection connection(FileDescriptor(::accept(listener_.number(), nullptr, nullptr), "connection"));
            script(connection);
          }
        }) {}
  ScriptedPeer(const ScriptedPeer&) = delete;
  ScriptedPeer& operator=(const ScriptedPeer&) = delete;
  ~ScriptedPeer() { thread_.join(); }

  const std::string& path() const { return path_; }

 private:
  ScratchDirectory directory_;
  std::string path_;
  FileDescriptor listener_;
  std::thread thread_;
};

}  // namespace vmsave
