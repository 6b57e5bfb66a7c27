// One end of a migration: a socket whose other end QEMU was given over QMP.
#pragma once

#include <string>

#include "qemu/qmp_client.h"

namespace vmsave {

class SaveGuard;

// Makes a socket and hands one end to QEMU (getfd), which closes it unused only when it is told to, or given another of
// that name. Returns our end. No path in any file system is involved.
FileDescriptor HandSocketToQemu(QmpClient& qmp, std::string_view name);

// A socket whose other end QEMU knows by uri().
class MigrationChannel {
 public:
  // `guard`, where there is one, holds our end: QEMU is not to lose it when this process is killed.
  explicit MigrationChannel(QmpClient& qmp, SaveGuard* guard = nullptr);
  // Our end of one that QEMU was given by that name, perhaps by a process that has ended.
  MigrationChannel(FileDescriptor socket, std::string name) : name_(std::move(name)), socket_(std::move(socket)) {}
  MigrationChannel(const MigrationChannel&) = delete;
  MigrationChannel& operator=(const MigrationChannel&) = delete;
  ~MigrationChannel();

  // For `migrate` and `migrate-incoming`.
  std::string uri() const;

  const FileDescriptor& socket() const { return socket_; }

  // No more bytes will be sent: the end of a stream for QEMU.
  void ShutDownSending();

 private:
  std::string name_;
  FileDescriptor socket_;
};

}  // namespace vmsave
