// One end of a migration: a socket whose other end QEMU was given over QMP.
#pragma once

#include <string>

#include "qemu/qmp_client.h"

namespace vmsave {

class SaveGuard;

// Hands the other end to QEMU (getfd), which knows it by uri(). No path in any file system is involved.
class MigrationChannel {
 public:
  // `guard`, where there is one, holds our end: QEMU is not to lose it when this process is killed.
  explicit MigrationChannel(QmpClient& qmp, SaveGuard* guard = nullptr);
  MigrationChannel(const MigrationChannel&) = delete;
  MigrationChannel& operator=(const MigrationChannel&) = delete;
  ~MigrationChannel();

  // For `migrate` and `migrate-incoming`.
  std::string uri() const;

  const FileDescriptor& socket() const { return socket_; }

  // No more bytes will be sent: the end of a stream for QEMU.
  void ShutDownSending();

 private:
  FileDescriptor socket_;
};

}  // namespace vmsave
