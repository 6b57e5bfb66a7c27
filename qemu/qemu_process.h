// A QEMU that vmrestore starts and waits for.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "io/file_descriptor.h"
#include "io/held_process.h"
#include "io/interrupt.h"
#include "io/private_directory.h"

namespace vmsave {

// What a QEMU command line tells before QEMU is started; nothing where it does not say.
struct CommandFacts {
  std::optional<std::string>
      machine_type;  // of -machine / -M / -machine type=, e.g. "pc-i440fx-7.2"; aliases as they stand ("pc", "q35")
  std::optional<ByteCount> memory;  // of -m, with QEMU's units (plain = MiB) and its size= form
  bool has_incoming = false;        // -incoming is there already
  bool daemonizes = false;          // -daemonize
};

// Understands "-opt value" and "--opt value" as QEMU does; the last one of an option counts. Options of a launcher
// before a program called qemu-... are left out; where there is none, all arguments count.
CommandFacts ReadCommand(const std::vector<std::string>& command);

class RestoreGuard;

// Starts `command` with "-incoming defer -S -qmp unix:PRIVATE-SOCKET,server=on,wait=off" added, in a PrivateDirectory.
// QEMU keeps the terminal and the other standard streams. The destructor of a process that was not released kills it
// (SIGTERM, then after a grace SIGKILL) and reaps it.
class QemuProcess {
 public:
  // kOwn: QEMU gets a session of its own, so that what happens in ours (Ctrl-C, a terminal that closes, our end where
  // we lead the session) does not reach it.
  enum class Session { kShared, kOwn };

  // `guard`, where there is one, ends QEMU should this process be killed before it is released. Throws Error{kFailed}
  // "cannot start PROGRAM".
  QemuProcess(const std::vector<std::string>& command, const Interrupt& interrupt, Session session = Session::kShared,
              RestoreGuard* guard = nullptr);
  QemuProcess(const QemuProcess&) = delete;
  QemuProcess& operator=(const QemuProcess&) = delete;
  ~QemuProcess();

  const std::string& qmp_socket_path() const { return socket_path_; }

  // Waits until QEMU answers on the QMP socket: its devices are there, it takes a client, and its pid is known. Throws
  // Error{kFailed} if QEMU ends first (with its exit status; a daemonizing one may end with status 0) or it takes
  // longer than `timeout`, Error{kInterrupted}.
  void WaitReady(std::chrono::milliseconds timeout = std::chrono::seconds(60));

  // From now on the destructor leaves QEMU running (the private directory is still removed).
  void Release();

  // The destructor leaves QEMU running, and the directory with the QMP socket: somebody may need it. What the guard
  // does is its own affair.
  void ReleaseWithSocket();

  // The destructor ends it after all: its guest has never run.
  void TakeBack();

  // Nobody needs it any more: it goes with the destructor.
  void RemoveSocket();

  // Passes on what came by the interrupt, which is used up by this, as WaitExit does.
  void PassOnSignal();

  // Waits until QEMU ends and returns its exit status as a shell tells it (128 + signal). SIGINT is left to a QEMU that
  // shares the session, and with it the terminal; other signals are passed on to it: they are taken from the interrupt,
  // which is used up by this. A daemonized QEMU: returns 0 at once.
  int WaitExit();

 private:
  HeldProcess HoldForGuard(pid_t pid) const;
  void KnowQemu(pid_t pid);
  bool Reap(bool wait);
  FileDescriptor TryConnect() const;
  [[noreturn]] void ThrowEnded() const;

  const Interrupt& interrupt_;
  Session session_;
  RestoreGuard* guard_;
  std::string program_;
  bool daemonizes_;
  PrivateDirectory directory_;
  std::string socket_path_;
  pid_t pid_ = -1;     // our child: QEMU, a launcher of it, or the process that daemonizes
  HeldProcess child_;  // the same
  HeldProcess other_;  // QEMU, where it is not our child: it daemonized itself, or is a child of a launcher
  bool reaped_ = false;
  int wait_status_ = 0;  // of the child, once it is reaped
  bool released_ = false;
};

}  // namespace vmsave
