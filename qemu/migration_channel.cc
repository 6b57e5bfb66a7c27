#include "qemu/migration_channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "qemu/save_guard.h"

namespace vmsave {
namespace {

constexpr std::string_view kDescriptorName = "vmsave-migration";

}  // namespace

MigrationChannel::MigrationChannel(QmpClient& qmp, SaveGuard* guard) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error::FromErrno("cannot make a socket for the migration", errno);
  }
  socket_ = FileDescriptor(ends[0], "the guest's migration stream");
  if (guard != nullptr) guard->HoldSocket(socket_);
  const FileDescriptor for_qemu(ends[1], "migration socket");
  qmp.Execute("getfd", {{"fdname", kDescriptorName}}, for_qemu.number());
}

// A guard's duplicate would keep it open.
MigrationChannel::~MigrationChannel() {
  ::shutdown(socket_.number(), SHUT_RDWR);
}

std::string MigrationChannel::uri() const {
  return "fd:" + std::string(kDescriptorName);
}

void MigrationChannel::ShutDownSending() {
  ::shutdown(socket_.number(), SHUT_WR);
}

}  // namespace vmsave
