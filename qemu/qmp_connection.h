// What carries QMP: lines of text and descriptors over a unix socket. What the lines say is not known here.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "io/file_descriptor.h"
#include "io/interrupt.h"

namespace vmsave {

// A time-out may be as good as endless; this does not overflow.
std::chrono::steady_clock::time_point DeadlineIn(std::chrono::milliseconds timeout);

// The Error{kFailed} for a guest that went away.
Error QmpClosedError(std::string_view what_failed);

// The advice where other clients hold the one connection that QEMU serves.
inline constexpr std::string_view kAddQmpSocketAdvice =
    "give QEMU a QMP socket of its own for this: a second -qmp unix:PATH,server=on,wait=off";

// One connection, not thread-safe. The other end is not trusted: it cannot make this process wait beyond a deadline, or
// keep more than 16 MiB.
class QmpConnection {
 public:
  using Clock = std::chrono::steady_clock;

  // Connects, without waiting. Throws Error{kFailed}: no such socket, not a socket, nobody listens, too many clients
  // wait already; Error{kUsage}: a name that is too long. The directory of the socket may have a name of any length.
  explicit QmpConnection(const std::string& socket_path);

  // Goes on with one that was made by somebody else: a duplicate of it.
  QmpConnection(const FileDescriptor& connection, const std::string& socket_path);

  // Sends the whole line. `descriptor` >= 0 goes along with its first byte (SCM_RIGHTS). Not interruptible: half a
  // request on the wire would make the connection useless for the clean-up that follows. Throws QmpClosedError, and
  // Error{kFailed} where QEMU does not take it within the timeout.
  void Send(std::string_view line, int descriptor, std::chrono::milliseconds timeout, std::string_view what_failed);

  // The next line, without its end. Nothing where none has come until the deadline, or none will come any more
  // (closed()). Past the deadline it looks once more at what has come. Gives way to `interrupt` where there is one.
  // Throws Error{kFailed} for a line of more than 16 MiB, after which the connection counts as closed.
  std::optional<std::string> ReadLine(Clock::time_point deadline, const Interrupt* interrupt);

  // Whether it is past the deadline, and no whole line is left of what was received. Who passes over lines asks this
  // for each of them: ReadLine alone would give one after the other for as long as they come.
  bool TimeIsUp(Clock::time_point deadline) const;

  // What has come of the next line.
  std::string_view begun_line() const { return received_; }

  // Whether QEMU has closed the connection, as far as was seen, or it became useless.
  bool closed() const { return closed_; }

  const FileDescriptor& socket() const { return socket_; }

  // The process on the other end (SO_PEERCRED); 0 where it cannot be seen from here.
  pid_t peer_pid() const;

 private:
  bool WaitSocket(short events, Clock::time_point deadline, const Interrupt* interrupt) const;
  void Receive();
  std::optional<std::string> TakeLine();

  FileDescriptor socket_;
  std::string received_;      // bytes that came and are no whole line yet
  std::size_t searched_ = 0;  // how many of them are known to hold no line end
  bool closed_ = false;
};

}  // namespace vmsave
