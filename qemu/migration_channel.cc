#include "qemu/migration_channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "qemu/save_guard.h"

namespace vmsave {

FileDescriptor HandSocketToQemu(QmpClient& qmp, std::string_view name) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error::FromErrno("cannot make a socket for the migration", errno);
  }
  FileDescriptor ours(ends[0], "the guest's migration stream");
  const FileDescriptor for_qemu(ends[1], "migration socket");
  qmp.Execute("getfd", {{"fdname", name}}, for_qemu.number());
  return ours;
}

MigrationChannel::MigrationChannel(QmpClient& qmp, SaveGuard* guard)
    : name_("vmsave-migration"), socket_(HandSocketToQemu(qmp, name_)) {
  if (guard != nullptr) guard->HoldSocket(socket_);
}

// A guard's duplicate would keep it open.
MigrationChannel::~MigrationChannel() {
  ::shutdown(socket_.number(), SHUT_RDWR);
}

std::string MigrationChannel::uri() const {
  return "fd:" + name_;
}

void MigrationChannel::ShutDownSending() {
  ::shutdown(socket_.number(), SHUT_WR);
}

}  // namespace vmsave
