// What is needed to go on with a guest that nobody serves: kept by a guard for vmrestore --recover, because a QEMU
// whose main thread waits for a page takes no new connection, and answers only out of band.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/file_descriptor.h"
#include "qemu/restore_record.h"
#include "qemu/spare_channel.h"

namespace vmsave {

struct KeptServing {
  RestoreRecord record{};  // with `serving`
  FileDescriptor qmp{};    // the connection
  std::vector<SpareChannel> spares{};
};

enum class KeptEnd { kTaken, kQemuEnded };

// Where TakeKept asks, from its construction on: an abstract socket, named after the QMP socket's inode. Where another
// process has that name, it is tried anew each second.
class KeptListener {
 public:
  // Throws Error{kFailed} where there is no such QMP socket any more.
  explicit KeptListener(const std::string& qmp_socket);

  // Waits until TakeKept asks for it, in a process of the same user or of root, or QEMU closes the connection. What
  // QEMU says meanwhile is passed over.
  KeptEnd KeepUntilTaken(const KeptServing& kept);

 private:
  void TryToListen();

  std::string name_;
  FileDescriptor socket_;  // not valid while somebody else has the name
};

// What another process keeps for the QEMU behind that socket; the process ends then. `hold` is called before it does:
// from then on this process must not lose it. Nothing where none is kept, or what is kept is no connection to a QEMU of
// the socket's owner. Throws Error{kFailed} where it was kept by another version of vmrestore.
std::optional<KeptServing> TakeKept(const std::string& qmp_socket, const std::function<void(const KeptServing&)>& hold);

}  // namespace vmsave
