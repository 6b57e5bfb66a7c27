// A client of QEMU's machine protocol (QMP) on a unix socket. Source of the protocol's facts: QEMU's
// docs/interop/qmp-spec. Everything that QEMU answers is checked; a reply may be late, wrong or never come.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/interrupt.h"
#include "qemu/qmp_connection.h"
#include "qemu/qmp_message.h"

namespace vmsave {

// QEMU answered a command with an error: what() names guest, command and QEMU's own text.
class QmpError : public Error {
 public:
  QmpError(const std::string& what_failed, std::string error_class, const std::string& description);
  const std::string& error_class() const { return error_class_; }

 private:
  std::string error_class_;
};

// One connection, not thread-safe. Every call waits at most the timeout and gives way to the interrupt.
class QmpClient {
 public:
  using Json = nlohmann::json;

  // Connects, reads the greeting and negotiates capabilities. Throws Error{kFailed}: no such socket, not a socket,
  // nobody listens, no QMP greeting (not a QMP socket; or busy: QEMU serves one client at a time, so a second one is
  // accepted by the kernel but not greeted). Where QEMU closes the connection before all that is done, connects anew
  // for as long as `reconnect_timeout`.
  QmpClient(const std::string& socket_path, const Interrupt& interrupt,
            std::chrono::milliseconds greeting_timeout = std::chrono::seconds(5),
            std::chrono::milliseconds reconnect_timeout = std::chrono::seconds(2));

  // Takes over a connection from a process that has ended, whatever it was doing: `connection` is duplicated. `band`:
  // in which QEMU is asked whether it is there; out of band it answers although its main thread waits, and version() is
  // 0.0 then. REQUIRES for kOut: that process had executes_out_of_band(). Throws Error{kFailed} where QEMU does not
  // answer.
  QmpClient(const FileDescriptor& connection, const std::string& socket_path, const Interrupt& interrupt,
            QmpBand band = QmpBand::kIn);

  // How long Execute waits for a reply; 30 s unless set.
  void SetTimeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  // Executes a command and returns its "return" value. `descriptor` >= 0 is passed along (SCM_RIGHTS), as getfd and
  // add-fd want it. Events that arrive meanwhile are kept for TakeEvents. Throws QmpError; Error{kFailed} on a
  // time-out, a reply that is not QMP, or a guest that went away ("QEMU closed the connection"). A reply that comes
  // after its command was given up (time-out, interrupt) is thrown away; the client stays usable.
  Json Execute(const std::string& command, const Json& arguments = Json::object(), int descriptor = -1);

  // As Execute, at once, by a thread of its own in QEMU, where executes_out_of_band(); else in its turn. For commands
  // that QEMU's schema marks with allow-oob.
  Json ExecuteOutOfBand(const std::string& command, const Json& arguments = Json::object());

  // Sends a command of which nobody knows when QEMU comes to it. Its answer is TryAnswer's, whatever is executed
  // meanwhile.
  std::uint64_t Begin(const std::string& command);

  // The answer to it; nothing where it has not come within `patience`. Throws as Execute. REQUIRES: it was not given
  // yet.
  std::optional<Json> TryAnswer(std::uint64_t question, std::chrono::milliseconds patience);

  // Whether QEMU has not answered yet to something that was begun, or given up: its main thread waits, or is slow. It
  // keeps at most 8 such commands and then reads nothing more, whatever the band.
  bool is_behind() const { return !unanswered_.empty(); }

  // Waits until it is not: whether that came about.
  bool CatchUp(std::chrono::milliseconds patience);

  bool executes_out_of_band() const { return out_of_band_; }

  // human-monitor-command: the text that HMP prints.
  std::string ExecuteHmp(const std::string& command_line);

  // While one lives, Execute waits for QEMU (up to its timeout) whatever the operator asks for: for commands that undo
  // something, and for those whose outcome must be known so that they can be undone.
  class Uninterrupted {
   public:
    explicit Uninterrupted(QmpClient& qmp) : qmp_(qmp), heeded_(std::exchange(qmp.heed_interrupt_, false)) {}
    Uninterrupted(const Uninterrupted&) = delete;
    Uninterrupted& operator=(const Uninterrupted&) = delete;
    ~Uninterrupted() { qmp_.heed_interrupt_ = heeded_; }

   private:
    QmpClient& qmp_;
    bool heeded_;
  };

  // While one lives, Execute waits that long for a reply.
  class Patience {
   public:
    Patience(QmpClient& qmp, std::chrono::milliseconds timeout)
        : qmp_(qmp), before_(std::exchange(qmp.timeout_, timeout)) {}
    Patience(const Patience&) = delete;
    Patience& operator=(const Patience&) = delete;
    ~Patience() { qmp_.timeout_ = before_; }

   private:
    QmpClient& qmp_;
    std::chrono::milliseconds before_;
  };

  // While one lives, Execute and TryAnswer call `check` now and then while they wait for a reply, and give way to what
  // it throws.
  class Watch {
   public:
    Watch(QmpClient& qmp, std::function<void()> check)
        : qmp_(qmp), before_(std::exchange(qmp.check_, std::move(check))) {}
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() { qmp_.check_ = std::move(before_); }

   private:
    QmpClient& qmp_;
    std::function<void()> before_;
  };

  // Events since the last call, in order, as QEMU sent them; those that have arrived but were not read yet included.
  // At most the newest 1024 are kept, and at most 1024 are read by one call: a guest can cause any number.
  std::vector<Json> TakeEvents();

  // Waits until an event of that name has come. It stays there for TakeEvents, and one that waits there already counts:
  // take the old ones first where a new one is meant. False on a time-out.
  bool WaitEvent(const std::string& name, std::chrono::milliseconds timeout);

  // Waits until QEMU closes the connection. False on a time-out.
  bool WaitClosed(std::chrono::milliseconds timeout);

  const QemuVersion& version() const { return version_; }
  const std::string& socket_path() const { return socket_path_; }

  // Whether QEMU has closed the connection, as far as was seen.
  bool closed() const { return connection_.closed(); }

  // The process on the other end (SO_PEERCRED); 0 where it cannot be seen from here.
  pid_t peer_pid() const { return connection_.peer_pid(); }

  // For a process that may have to take the connection over.
  const FileDescriptor& socket() const { return connection_.socket(); }

 private:
  using Clock = QmpConnection::Clock;
  enum class Message { kEvent, kReply };

  // While one lives the reply to that command is kept.
  class Awaited {
   public:
    Awaited(QmpClient& qmp, std::uint64_t id) : qmp_(qmp), id_(id) { qmp_.awaited_.emplace(id_, std::nullopt); }
    Awaited(const Awaited&) = delete;
    Awaited& operator=(const Awaited&) = delete;
    ~Awaited() { qmp_.awaited_.erase(id_); }

   private:
    QmpClient& qmp_;
    std::uint64_t id_;
  };

  bool TryGreeting(std::chrono::milliseconds timeout, Clock::time_point give_up);
  Json ReadGreeting(std::chrono::milliseconds timeout);
  Json ExecuteIn(QmpBand band, const std::string& command, const Json& arguments, int descriptor);
  std::string ReadGreetingLine(Clock::time_point deadline, std::chrono::milliseconds timeout,
                               const std::string& what_failed);
  std::uint64_t Send(QmpBand band, const std::string& command, const Json& arguments, int descriptor,
                     const std::string& what_failed);
  std::optional<Json> AwaitReplyTo(std::uint64_t id, Clock::time_point deadline, const std::string& what_failed);
  std::optional<Message> ReadMessage(Clock::time_point deadline, const std::string& what_failed);
  void KeepReply(Json reply, const std::string& what_failed);
  void KeepEvent(Json event, std::size_t length, const std::string& what_failed);
  static std::uint64_t IdOf(const Json& reply, const std::string& what_failed);
  const Interrupt* Heeded() const { return heed_interrupt_ ? &interrupt_ : nullptr; }

  std::string socket_path_;
  const Interrupt& interrupt_;
  QmpConnection connection_;
  QemuVersion version_;
  bool out_of_band_ = false;
  bool heed_interrupt_ = true;
  std::function<void()> check_;
  std::chrono::milliseconds timeout_ = std::chrono::seconds(30);
  std::set<std::uint64_t> unanswered_;  // in band
  std::uint64_t last_id_;               // starts somewhere else in each client: QEMU may still answer to one before
  std::deque<Json> events_;
  std::map<std::uint64_t, std::optional<Json>> awaited_;  // with the reply, once it is there
};

}  // namespace vmsave
