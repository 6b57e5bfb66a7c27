// A process beside this one that undoes what this one began, should it end in the middle of it: by kill -9, for want of
// memory, by a crash.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_descriptor.h"

namespace vmsave {

// The guard has a session of its own and is not reached by the signals that stop a program; it keeps standard error,
// and nothing else that is open in this process when it is made. It does not survive what ends both at once: SIGKILL to
// a whole control group, a power failure.
class GuardProcess {
 public:
  struct Held {
    std::string role;
    FileDescriptor descriptor;
    unsigned accepts = 0;  // so many more connections
  };

  // What this process leaves behind. The descriptors are in the order in which they were held.
  struct Legacy {
    std::string record;
    std::vector<Held> held;
    FileDescriptor awaited{};  // Leave returns once it is closed
  };

  // Called in the guard once this process has ended, however that came, unless Dismiss was called. What it throws is
  // told. Not called where nothing was ever recorded.
  using Undo = std::function<void(Legacy)>;

  // For `undo`: on standard error, as far as that takes it within a second, and in the system's log.
  static void Tell(const std::string& program, const std::string& message) noexcept;

  // For an `undo` that goes on for long: nobody is to wait for the end of standard error until it is done.
  static void LetGoOfStandardError() noexcept;

  // Forks. `name` is what the guard is called in lists of processes (at most 15 bytes). REQUIRES: no other thread has
  // been started; the standard streams are open. Throws Error{kFailed}.
  GuardProcess(const std::string& name, const Undo& undo);
  GuardProcess(const GuardProcess&) = delete;
  GuardProcess& operator=(const GuardProcess&) = delete;
  // Dismisses.
  ~GuardProcess();

  // Each is in the guard's hands when it returns: what this process does next may be its last. Thread-safe. Where the
  // guard has gone they do nothing; one that cannot be told any more is ended, since it would undo what is done.

  // What `undo` has to know, of any length; replaces what was recorded before, all at once.
  void Record(std::string_view record) noexcept;
  // The guard holds a duplicate, so that the file or connection stays open whatever becomes of this process: also when
  // this process closes it.
  void Hold(std::string_view role, const FileDescriptor& descriptor) noexcept;
  // The guard accepts the first `count` connections that are made to `listener` and hands them over by TakeConnection.
  // So it holds each, in that role, from the beginning on: one that this process accepted itself could be lost before
  // it is held.
  void AcceptOn(std::string_view role, const FileDescriptor& listener, unsigned count);
  // Closes the duplicates of that role.
  void LetGo(std::string_view role) noexcept;

  // The next connection, once connections() is readable. Nothing where the guard has gone. One thread's at a time.
  std::optional<FileDescriptor> TakeConnection();
  int connections() const { return channel_.number(); }

  // The guard lets go of standard error: what it has to tell goes to the system's log alone.
  void Quieten() noexcept;

  // There is nothing to undo any more: the guard ends, and has ended when this returns.
  void Dismiss() noexcept;

  // This process leaves as if it were killed, and the guard does its part at once. Returns when that has come so far
  // that others can rely on it (Legacy::awaited), or after 10 s.
  void Leave() noexcept;

  // Of the guard; -1 once it was dismissed, or left.
  pid_t pid() const { return pid_; }

  // Whether the guard has ended before its time: nobody would undo anything.
  bool gone() const noexcept;

 private:
  void Send(char kind, std::string_view text, int descriptor = -1) noexcept;
  void Abandon() noexcept;

  FileDescriptor channel_;
  std::mutex record_mutex_;  // a record comes in parts
  pid_t pid_ = -1;           // once it is dismissed
  std::atomic<bool> gone_ = false;
};

}  // namespace vmsave
