#include "qemu/qmp_client.h"

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
#include <random>

namespace vmsave {
namespace {

using Json = QmpClient::Json;

// What the other end may make this process keep. QEMU's largest replies (query-qmp-schema, a memory tree of a guest
// with many devices) are far below 1 MiB.
constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxEventBytes = std::size_t{64} << 10;
constexpr std::size_t kMaxEvents = 1024;
constexpr int kMaxNesting = 256;
constexpr std::size_t kMaxDescriptionBytes = 1000;

constexpr std::string_view kAddSocketAdvice =
    "give QEMU a QMP socket of its own for this: a second -qmp unix:PATH,server=on,wait=off";

// Text of the other end as it may be shown on a terminal: no control characters, of bounded length.
std::string Printable(std::string_view text) {
  std::string printable(text.substr(0, kMaxDescriptionBytes));
  std::replace_if(
      printable.begin(), printable.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f; }, ' ');
  return printable;
}

// Limits recursion in whoever walks the value later; the parser itself has no limit.
bool NestsTooDeep(std::string_view line) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxNesting) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

// Discarded (Json::is_discarded) where the line is not JSON.
Json Parse(std::string_view line) {
  if (NestsTooDeep(line)) return Json(Json::value_t::discarded);
  return Json::parse(line, nullptr, /*allow_exceptions=*/false);
}

std::string StringMember(const Json& object, const char* name) {
  if (!object.is_object()) return "";
  const auto member = object.find(name);
  return member != object.end() && member->is_string() ? member->get<std::string>() : "";
}

std::optional<int> VersionMember(const Json& object, const char* name) {
  const auto member = object.find(name);
  if (member == object.end() || !member->is_number_unsigned()) return std::nullopt;
  const auto value = member->get<std::uint64_t>();
  if (value > 100000) return std::nullopt;
  return static_cast<int>(value);
}

// The version in {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, ...}, ...}}.
std::optional<QemuVersion> GreetingVersion(const Json& greeting) {
  const Json* value = &greeting;
  for (const char* name : {"QMP", "version", "qemu"}) {
    if (!value->is_object()) return std::nullopt;
    const auto member = value->find(name);
    if (member == value->end()) return std::nullopt;
    value = &*member;
  }
  if (!value->is_object()) return std::nullopt;
  const std::optional<int> major = VersionMember(*value, "major");
  const std::optional<int> minor = VersionMember(*value, "minor");
  const std::optional<int> micro = VersionMember(*value, "micro");
  if (!major || !minor || !micro) return std::nullopt;
  return QemuVersion{*major, *minor, *micro};
}

// A time-out may be as good as endless; adding it to the clock must not overflow.
std::chrono::steady_clock::time_point DeadlineIn(std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kYear = std::chrono::hours(24 * 365);
  return std::chrono::steady_clock::now() + std::clamp(timeout, std::chrono::milliseconds(0), kYear);
}

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
                   kAddSocketAdvice);
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

// One sendmsg(2); `descriptor` >= 0 goes along with the first byte.
ssize_t SendSome(int socket, std::string_view bytes, int descriptor) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (descriptor >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

std::string RequestLine(const std::string& command, const Json& arguments, std::uint64_t id,
                        const std::string& what_failed) {
  Json request{{"execute", command}, {"id", id}};
  if (!arguments.empty()) request["arguments"] = arguments;
  try {
    return request.dump() + "\n";
  } catch (const Json::exception&) {  // QMP is UTF-8; a file name need not be
    throw Error(ErrorKind::kFailed, what_failed, "a name in it is not UTF-8, which QMP needs");
  }
}

}  // namespace

QmpError::QmpError(const std::string& what_failed, std::string error_class, const std::string& description)
    : Error(ErrorKind::kFailed, what_failed, description), error_class_(std::move(error_class)) {}

QmpClient::QmpClient(const std::string& socket_path, const Interrupt& interrupt,
                     std::chrono::milliseconds greeting_timeout)
    : socket_path_(socket_path),
      interrupt_(interrupt),
      socket_(Connect(socket_path)),
      last_id_(std::random_device()()) {
  ReadGreeting(greeting_timeout);
  Execute("qmp_capabilities");
}

// An answer to a client that was cut off in the middle of a command may come in front of the greeting.
void QmpClient::ReadGreeting(std::chrono::milliseconds timeout) {
  const std::string what_failed = fmt::format("cannot talk to the guest at {}", socket_path_);
  const Clock::time_point deadline = DeadlineIn(timeout);
  Json message;
  do {
    message = Parse(ReadGreetingLine(deadline, timeout, what_failed));
  } while (message.is_object() && message.contains("id") && message.contains("return"));
  const std::optional<QemuVersion> version = GreetingVersion(message);
  if (!version) {
    throw Error(ErrorKind::kFailed, what_failed, "it is not a QMP socket: its greeting is not that of QMP",
                "name the socket of QEMU's -qmp, not that of -monitor, -serial or another program");
  }
  version_ = *version;
}

std::string QmpClient::ReadGreetingLine(Clock::time_point deadline, std::chrono::milliseconds timeout,
                                        const std::string& what_failed) {
  std::string line;
  switch (ReadLine(deadline, line)) {
    case Input::kClosed:
      throw Closed(what_failed);
    case Input::kNothingYet:
      // What has come so far is no line: it is judged as it stands.
      if (!received_.empty()) return received_;
      throw Error(ErrorKind::kFailed, what_failed,
                  fmt::format("no QMP greeting within {} ms: another client holds the QMP socket, or it is not a QMP "
                              "socket, or QEMU hangs",
                              timeout.count()),
                  kAddSocketAdvice);
    case Input::kLine:
      break;
  }
  return line;
}

Json QmpClient::Execute(const std::string& command, const Json& arguments, int descriptor) {
  if (heed_interrupt_) interrupt_.Check();
  const std::string what_failed = fmt::format("cannot execute {} on the guest at {}", command, socket_path_);
  const std::uint64_t id = ++last_id_;
  const Clock::time_point deadline = DeadlineIn(timeout_);
  Send(RequestLine(command, arguments, id, what_failed), descriptor, what_failed);
  while (true) {
    Json reply;
    switch (ReadMessage(deadline, what_failed, reply)) {
      case Input::kClosed:
        throw Closed(what_failed);
      case Input::kNothingYet:
        throw Error(ErrorKind::kFailed, what_failed, fmt::format("no answer within {} ms", timeout_.count()),
                    "is QEMU stopped or overloaded?");
      case Input::kLine:
        break;
    }
    if (reply.is_null() || !IsReplyTo(id, reply, what_failed)) continue;  // an event, or a reply that comes too late
    const auto value = reply.find("return");
    if (value != reply.end()) return std::move(*value);
    const Json& error = reply["error"];
    throw QmpError(what_failed, Printable(StringMember(error, "class")), Printable(StringMember(error, "desc")));
  }
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
  Json reply;
  const std::string what_failed = fmt::format("cannot read events of the guest at {}", socket_path_);
  while (ReadMessage(Clock::now(), what_failed, reply) == Input::kLine) {
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
  while (true) {
    Json reply;
    switch (ReadMessage(deadline, what_failed, reply)) {
      case Input::kClosed:
        throw Closed(what_failed);
      case Input::kNothingYet:
        return false;
      case Input::kLine:
        if (reply.is_null() && has_name(events_.back())) return true;
    }
  }
}

bool QmpClient::WaitClosed(std::chrono::milliseconds timeout) {
  const std::string what_failed = fmt::format("cannot wait for the end of the guest at {}", socket_path_);
  const Clock::time_point deadline = DeadlineIn(timeout);
  while (true) {
    Json reply;
    const Input input = ReadMessage(deadline, what_failed, reply);
    if (input != Input::kLine) return input == Input::kClosed;
  }
}

pid_t QmpClient::peer_pid() const {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(socket_.number(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return 0;
  return credentials.pid;
}

// Not interruptible: half a request on the wire would make the connection useless for the clean-up that follows.
void QmpClient::Send(const std::string& line, int descriptor, const std::string& what_failed) {
  if (closed_) throw Closed(what_failed);
  const Clock::time_point deadline = DeadlineIn(timeout_);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t sent = SendSome(socket_.number(), rest, descriptor);
    if (sent >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(sent));
      descriptor = -1;
    } else if (errno == EPIPE || errno == ECONNRESET) {
      closed_ = true;
      throw Closed(what_failed);
    } else if (errno == EAGAIN) {
      if (WaitSocket(POLLOUT, deadline, /*heed_interrupt=*/false)) continue;
      closed_ = rest.size() < line.size();  // a request that broke off cannot be mended
      throw Error(ErrorKind::kFailed, what_failed, fmt::format("QEMU reads nothing for {} ms", timeout_.count()),
                  "is QEMU stopped or overloaded?");
    } else if (errno != EINTR) {
      throw Error::FromErrno(what_failed, errno);
    }
  }
}

bool QmpClient::WaitSocket(short events, Clock::time_point deadline, bool heed_interrupt) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const auto wait_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
    std::array<pollfd, 2> set{pollfd{socket_.number(), events, 0},
                              pollfd{heed_interrupt ? interrupt_.descriptor() : -1, POLLIN, 0}};
    const int ready = ::poll(set.data(), set.size(), wait_ms);
    if (ready < 0 && errno != EINTR) throw Error::FromErrno("cannot wait for the guest", errno);
    if (heed_interrupt) interrupt_.Check();
    if (ready > 0) return true;
    if (Clock::now() >= deadline) return false;
  }
}

QmpClient::Input QmpClient::ReadLine(Clock::time_point deadline, std::string& line) {
  std::array<char, 65536> chunk;
  while (!TakeLine(line)) {
    if (closed_) return Input::kClosed;
    if (!WaitSocket(POLLIN, deadline, heed_interrupt_)) return Input::kNothingYet;
    const ssize_t count = ::recv(socket_.number(), chunk.data(), chunk.size(), 0);
    if (count > 0) {
      received_.append(chunk.data(), static_cast<std::size_t>(count));
    } else if (count == 0 || errno == ECONNRESET) {
      closed_ = true;
    } else if (errno != EINTR && errno != EAGAIN) {
      throw Error::FromErrno(fmt::format("cannot read from the guest at {}", socket_path_), errno);
    }
  }
  return Input::kLine;
}

// Moves the first whole line of what was received to `line`; false if there is none yet.
bool QmpClient::TakeLine(std::string& line) {
  const std::size_t end = received_.find('\n', searched_);
  if ((end == std::string::npos ? received_.size() : end) > kMaxLineBytes) {
    closed_ = true;
    received_.clear();
    throw Error(ErrorKind::kFailed, fmt::format("cannot talk to the guest at {}", socket_path_),
                fmt::format("it sent a line of more than {} MiB, which QEMU does not do", kMaxLineBytes >> 20));
  }
  if (end == std::string::npos) {
    searched_ = received_.size();
    return false;
  }
  line.assign(received_, 0, end);
  received_.erase(0, end + 1);
  searched_ = 0;
  return true;
}

// One message: an event is kept and leaves `reply` null.
QmpClient::Input QmpClient::ReadMessage(Clock::time_point deadline, const std::string& what_failed, Json& reply) {
  std::string line;
  const Input input = ReadLine(deadline, line);
  if (input != Input::kLine) return input;
  Json message = Parse(line);
  if (message.is_object() && !StringMember(message, "event").empty()) {
    KeepEvent(std::move(message), line.size(), what_failed);
    reply = nullptr;
  } else if (message.is_object() && (message.contains("return") || message.contains("error"))) {
    reply = std::move(message);
  } else {
    throw Error(ErrorKind::kFailed, what_failed, "the guest's socket sent something that is not QMP");
  }
  return Input::kLine;
}

void QmpClient::KeepEvent(Json event, std::size_t length, const std::string& what_failed) {
  if (length > kMaxEventBytes) {
    throw Error(ErrorKind::kFailed, what_failed,
                fmt::format("it sent an event of more than {} KiB, which QEMU does not do", kMaxEventBytes >> 10));
  }
  if (events_.size() == kMaxEvents) events_.pop_front();
  events_.push_back(std::move(event));
}

bool QmpClient::IsReplyTo(std::uint64_t id, const Json& reply, const std::string& what_failed) const {
  const auto member = reply.find("id");
  if (member != reply.end() && member->is_number_unsigned()) {
    return member->get<std::uint64_t>() == id;
  }
  // QEMU answers without an id only to what it could not read as a request.
  const std::string description = reply.contains("error") ? StringMember(reply["error"], "desc") : "";
  throw Error(ErrorKind::kFailed, what_failed,
              fmt::format("QEMU answered to something that was not asked: {}", Printable(description)));
}

Error QmpClient::Closed(std::string_view what_failed) const {
  return Error(ErrorKind::kFailed, what_failed, "QEMU closed the connection", "has the guest ended?");
}

}  // namespace vmsave
