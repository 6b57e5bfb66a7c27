// What is needed to go on with a guest that nobody serves: kept by a guard for vmrestore --recover, because a QEMU
// whose main thread waits for a page takes no new connection, and answers only out of band.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/file_descriptor.h"
#include "qemu/restore_record.h"
#include "qemu/spare_channel.h"

// The hand-over: the keeper sends all of it, who takes it lets a guard hold that too, tells so ("taken"), and is told
// that the keeper has let go. Whichever process is killed at whatever moment, one is left that knows that it is the
// one.

namespace vmsave {

struct KeptServing {
  RestoreRecord record{};  // with `serving`
  FileDescriptor qmp{};    // the connection
  std::vector<SpareChannel> spares{};
  FileDescriptor hand_over{};  // between TakeKept's `hold` and its end: to whom it is taken from
};

// The connection again, whoever has it. `kept` is not needed any more then.
QmpClient Reconnect(const KeptServing& kept, const Interrupt& interrupt);

enum class KeptEnd { kTaken, kKeptByAnother, kQemuEnded };

// Where TakeKept asks, from its construction on: an abstract socket, named after the QMP socket's inode. Where another
// process has that name, it is tried anew for as long as that one lives.
class KeptListener {
 public:
  // Throws Error{kFailed} where there is no such QMP socket any more.
  explicit KeptListener(const std::string& qmp_socket);

  // Waits until TakeKept asks for it, in a process of the same user or of root, or QEMU closes the connection. What
  // QEMU says meanwhile is passed over. Where another process has the name, and shows that it keeps the same: whoever
  // asks gets it from there, and this one must not touch it any more. `on_listening` is called once TakeKept is heard.
  KeptEnd KeepUntilTaken(
      const KeptServing& kept, const std::function<void()>& on_listening = [] {});

 private:
  void TryToListen();
  bool IsKeptByAnother() const;

  std::string qmp_socket_;
  std::string name_;
  uid_t owner_;            // of the QMP socket
  FileDescriptor socket_;  // not valid while somebody else has the name
};

// What another process keeps for the QEMU behind that socket; the process ends then. `hold` is called before it does:
// from then on this process must not lose it. Nothing where none is kept, or who keeps it is neither this user, nor the
// socket's owner, nor root. Throws Error{kFailed} where it was kept by another version of vmrestore; and where the
// keeper does not answer in the end: what was held may be this process's, which KeptListener finds out.
std::optional<KeptServing> TakeKept(const std::string& qmp_socket, const std::function<void(const KeptServing&)>& hold);

// The rest of TakeKept, for a process that holds what it was given when it was killed: whether it is this one's now.
// Where it is not, somebody else may keep it, which KeptListener finds out.
bool FinishTaking(const FileDescriptor& hand_over);

}  // namespace vmsave
