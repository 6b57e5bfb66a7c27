#include "qemu/qmp_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace vmsave {
namespace {

using Json = QmpClient::Json;

// What the other end may make this process keep.
constexpr std::size_t kMaxEventBytes = std::size_t{16} << 10;
constexpr std::size_t kMaxEvents = 1024;

constexpr int kReconnectPauseMs = 20;
constexpr std::chrono::minutes kTakeOverTimeout{10};  // it may be busy with what the other process has asked
constexpr std::chrono::milliseconds kCheckEvery{50};
constexpr int kNoDescriptor = -1;

// Throws QmpError where the reply is one.
Json ValueIn(Json reply, const std::string& what_failed) {
  const auto value = reply.find("return");
  if (value != reply.end()) return std::move(*value);
  const Json& error = reply["error"];
  throw QmpError(what_failed, Excerpt(StringMember(error, "class")), Excerpt(StringMember(error, "desc")));
}

}  // namespace

QmpError::QmpError(const std::string& what_failed, std::string error_class, const std::string& description)
    : Error(ErrorKind::kFailed, what_failed, description), error_class_(std::move(error_class)) {}

QmpClient::QmpClient(const std::string& socket_path, const Interrupt& interrupt,
                     std::chrono::milliseconds greeting_timeout, std::chrono::milliseconds reconnect_timeout)
    : socket_path_(socket_path), interrupt_(interrupt), connection_(socket_path), last_id_(std::random_device()()) {
  const Clock::time_point give_up = DeadlineIn(reconnect_timeout);
  while (!TryGreeting(greeting_timeout, give_up)) {
    interrupt_.WaitReadable(kNoDescriptor, kReconnectPauseMs);
    connection_ = QmpConnection(socket_path_);
  }
}

// The first line may be the rest of one that was half read, and answers to the other process may come before ours.
QmpClient::QmpClient(const FileDescriptor& connection, const std::string& socket_path, const Interrupt& interrupt,
                     QmpBand band)
    : socket_path_(socket_path),
      interrupt_(interrupt),
      connection_(connection, socket_path),
      out_of_band_(band == QmpBand::kOut),
      last_id_(std::random_device()()) {
  const std::string what_failed = fmt::format("cannot take over the connection to the guest at {}", socket_path_);
  const Clock::time_point deadline = DeadlineIn(kTakeOverTimeout);
  const std::uint64_t id = ++last_id_;
  connection_.Send(QmpRequest("query-version", Json::object(), id, what_failed, band), kNoDescriptor, kTakeOverTimeout,
                   what_failed);
  while (const std::optional<std::string> line = connection_.ReadLine(deadline, &interrupt_)) {
    Json message = ParseQmp(*line);
    if (!StringMember(message, "event").empty()) KeepEvent(std::move(message), line->size(), what_failed);
    if (!message.is_object() || message.value("id", Json()) != id) {
      if (connection_.TimeIsUp(deadline)) break;
      continue;
    }
    if (out_of_band_) return;  // QEMU answers that it is no such command, and so that it is there
    const std::optional<QemuVersion> version =
        GreetingVersion({{"QMP", {{"version", message.value("return", Json())}}}});
    if (!version) break;
    version_ = *version;
    return;
  }
  if (closed()) throw QmpClosedError(what_failed);
  throw Error(ErrorKind::kFailed, what_failed, "QEMU does not answer");
}

// False where QEMU closed the connection, and it is not yet time to give up: while it takes down the connection of a
// client that has just left it may take down the next one too.
bool QmpClient::TryGreeting(std::chrono::milliseconds timeout, Clock::time_point give_up) {
  try {
    out_of_band_ = OffersOutOfBand(ReadGreeting(timeout));
    Execute("qmp_capabilities", out_of_band_ ? Json{{"enable", Json::array({"oob"})}} : Json::object());
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFailed || !closed() || Clock::now() >= give_up) throw;
    return false;
  }
}

// An answer to a client that was cut off in the middle of a command may come in front of the greeting, which has no id.
Json QmpClient::ReadGreeting(std::chrono::milliseconds timeout) {
  const std::string what_failed = fmt::format("cannot talk to the guest at {}", socket_path_);
  const Clock::time_point deadline = DeadlineIn(timeout);
  Json message;
  do {
    message = ParseQmp(ReadGreetingLine(deadline, timeout, what_failed));
  } while (message.is_object() && message.contains("id") && !connection_.TimeIsUp(deadline));
  const std::optional<QemuVersion> version = GreetingVersion(message);
  if (!version) {
    throw Error(ErrorKind::kFailed, what_failed, "it is not a QMP socket: its greeting is not that of QMP",
                "name the socket of QEMU's -qmp, not that of -monitor, -serial or another program");
  }
  version_ = *version;
  return message;
}

std::string QmpClient::ReadGreetingLine(Clock::time_point deadline, std::chrono::milliseconds timeout,
                                        const std::string& what_failed) {
  if (std::optional<std::string> line = connection_.ReadLine(deadline, Heeded())) return *std::move(line);
  if (closed()) throw QmpClosedError(what_failed);
  // What has come so far is no line: it is judged as it stands.
  if (!connection_.begun_line().empty()) return std::string(connection_.begun_line());
  throw Error(ErrorKind::kFailed, what_failed,
              fmt::format("no QMP greeting within {} ms: another client holds the QMP socket, or it is not a QMP "
                          "socket, or QEMU hangs",
                          timeout.count()),
              kAddQmpSocketAdvice);
}

Json QmpClient::Execute(const std::string& command, const Json& arguments, int descriptor) {
  return ExecuteIn(QmpBand::kIn, command, arguments, descriptor);
}

Json QmpClient::ExecuteOutOfBand(const std::string& command, const Json& arguments) {
  return ExecuteIn(out_of_band_ ? QmpBand::kOut : QmpBand::kIn, command, arguments, kNoDescriptor);
}

Json QmpClient::ExecuteIn(QmpBand band, const std::string& command, const Json& arguments, int descriptor) {
  if (heed_interrupt_) interrupt_.Check();
  const std::string what_failed = fmt::format("cannot execute {} on the guest at {}", command, socket_path_);
  const Clock::time_point deadline = DeadlineIn(timeout_);
  const std::uint64_t id = Send(band, command, arguments, descriptor, what_failed);
  const Awaited awaited(*this, id);
  std::optional<Json> reply = AwaitReplyTo(id, deadline, what_failed);
  if (reply) return ValueIn(*std::move(reply), what_failed);
  throw Error(ErrorKind::kFailed, what_failed, fmt::format("no answer within {} ms", timeout_.count()),
              "is QEMU stopped or overloaded?");
}

std::uint64_t QmpClient::Begin(const std::string& command) {
  const std::string what_failed = fmt::format("cannot execute {} on the guest at {}", command, socket_path_);
  const std::uint64_t id = Send(QmpBand::kIn, command, Json::object(), kNoDescriptor, what_failed);
  awaited_.emplace(id, std::nullopt);
  return id;
}

std::optional<Json> QmpClient::TryAnswer(std::uint64_t question, std::chrono::milliseconds patience) {
  const std::string what_failed = fmt::format("cannot ask the guest at {}", socket_path_);
  std::optional<Json> reply = AwaitReplyTo(question, DeadlineIn(patience), what_failed);
  if (!reply) return std::nullopt;
  awaited_.erase(question);
  return ValueIn(*std::move(reply), what_failed);
}

bool QmpClient::CatchUp(std::chrono::milliseconds patience) {
  const std::string what_failed = fmt::format("cannot ask the guest at {}", socket_path_);
  const Clock::time_point deadline = DeadlineIn(patience);
  while (is_behind() && ReadMessage(deadline, what_failed) && !connection_.TimeIsUp(deadline)) {
  }
  return !is_behind();
}

std::uint64_t QmpClient::Send(QmpBand band, const std::string& command, const Json& arguments, int descriptor,
                              const std::string& what_failed) {
  const std::uint64_t id = ++last_id_;
  connection_.Send(QmpRequest(command, arguments, id, what_failed, band), descriptor, timeout_, what_failed);
  if (band == QmpBand::kIn) unanswered_.insert(id);
  return id;
}

std::string QmpClient::ExecuteHmp(const std::string& command_line) {
  Json text = Execute("human-monitor-command", {{"command-line", command_line}});
  if (!text.is_string()) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot execute {} on the guest at {}", command_line, socket_path_),
                "the answer is not a text, as QEMU's would be");
  }
  return text.get<std::string>();
}

std::vector<Json> QmpClient::TakeEvents() {
  const std::string what_failed = fmt::format("cannot read events of the guest at {}", socket_path_);
  for (std::size_t read = 0; read < kMaxEvents && ReadMessage(Clock::now(), what_failed); ++read) {
  }
  std::vector<Json> events(std::make_move_iterator(events_.begin()), std::make_move_iterator(events_.end()));
  events_.clear();
  return events;
}

bool QmpClient::WaitEvent(const std::string& name, std::chrono::milliseconds timeout) {
  const std::string what_failed = fmt::format("cannot wait for {} of the guest at {}", name, socket_path_);
  const Clock::time_point deadline = DeadlineIn(timeout);
  const auto has_name = [&name](const Json& event) { return StringMember(event, "event") == name; };
  if (std::any_of(events_.begin(), events_.end(), has_name)) return true;
  while (const std::optional<Message> message = ReadMessage(deadline, what_failed)) {
    if (message == Message::kEvent && has_name(events_.back())) return true;
    if (connection_.TimeIsUp(deadline)) break;
  }
  if (closed()) throw QmpClosedError(what_failed);
  return false;
}

bool QmpClient::WaitClosed(std::chrono::milliseconds timeout) {
  const std::string what_failed = fmt::format("cannot wait for the end of the guest at {}", socket_path_);
  const Clock::time_point deadline = DeadlineIn(timeout);
  while (ReadMessage(deadline, what_failed) && !connection_.TimeIsUp(deadline)) {
  }
  return closed();
}

// The reply, where it has come until the deadline. REQUIRES: it is awaited.
std::optional<Json> QmpClient::AwaitReplyTo(std::uint64_t id, Clock::time_point deadline,
                                            const std::string& what_failed) {
  std::optional<Json>& reply = awaited_.at(id);
  while (!reply && !closed()) {
    const Clock::time_point look = check_ ? std::min(deadline, Clock::now() + kCheckEvery) : deadline;
    if (!ReadMessage(look, what_failed) && check_) check_();
    if (connection_.TimeIsUp(deadline)) break;
  }
  if (!reply && closed()) throw QmpClosedError(what_failed);
  return std::move(reply);
}

// The next message: an event, which is kept, or a reply, which is kept where it is awaited. Nothing where none came
// until the deadline, or QEMU has closed the connection.
std::optional<QmpClient::Message> QmpClient::ReadMessage(Clock::time_point deadline, const std::string& what_failed) {
  const std::optional<std::string> line = connection_.ReadLine(deadline, Heeded());
  if (!line) return std::nullopt;
  Json message = ParseQmp(*line);
  if (message.is_object() && !StringMember(message, "event").empty()) {
    KeepEvent(std::move(message), line->size(), what_failed);
    return Message::kEvent;
  }
  if (!message.is_object() || (!message.contains("return") && !message.contains("error"))) {
    throw Error(ErrorKind::kFailed, what_failed, "the guest's socket sent something that is not QMP");
  }
  KeepReply(std::move(message), what_failed);
  return Message::kReply;
}

void QmpClient::KeepReply(Json reply, const std::string& what_failed) {
  const std::uint64_t id = IdOf(reply, what_failed);
  unanswered_.erase(id);
  if (const auto awaited = awaited_.find(id); awaited != awaited_.end()) awaited->second = std::move(reply);
}

void QmpClient::KeepEvent(Json event, std::size_t length, const std::string& what_failed) {
  if (length > kMaxEventBytes) {
    throw Error(ErrorKind::kFailed, what_failed,
                fmt::format("it sent an event of more than {} KiB, which QEMU does not do", kMaxEventBytes >> 10));
  }
  if (events_.size() == kMaxEvents) events_.pop_front();
  events_.push_back(std::move(event));
}

std::uint64_t QmpClient::IdOf(const Json& reply, const std::string& what_failed) {
  const auto member = reply.find("id");
  if (member != reply.end() && member->is_number_unsigned()) return member->get<std::uint64_t>();
  // QEMU answers without an id only to what it could not read as a request.
  const std::string description = reply.contains("error") ? StringMember(reply["error"], "desc") : "";
  throw Error(ErrorKind::kFailed, what_failed,
              fmt::format("QEMU answered to something that was not asked: {}", Excerpt(description)));
}

}  // namespace vmsave
