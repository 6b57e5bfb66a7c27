// One end of a migration: a socket whose other end QEMU was given over QMP.
#pragma once

#include <string>
#include <vector>

#include "format/stream_reader.h"
#include "qemu/qmp_client.h"
#include "reader/stream_sender.h"

namespace vmsave {

// Hands the other end to QEMU (getfd), which knows it by uri(). No path in any file system is involved.
class MigrationChannel {
 public:
  explicit MigrationChannel(QmpClient& qmp);

  // For `migrate` and `migrate-incoming`.
  std::string uri() const;

  const FileDescriptor& socket() const { return socket_; }

  // No more bytes will be sent: the end of a stream for QEMU.
  void ShutDownSending();

  // Nothing will be read or sent any more: QEMU's end fails at once. Without it, a QEMU that waits for room in the
  // socket would answer no command.
  void ShutDown();

 private:
  FileDescriptor socket_;
};

// What QEMU is sent. Gives way to the interrupt.
class ChannelSink : public ByteSink {
 public:
  using ByteSink::Write;
  ChannelSink(const MigrationChannel& channel, const Interrupt& interrupt) : channel_(channel), interrupt_(interrupt) {}

  void Write(std::span<const iovec> pieces) override;

 private:
  std::size_t WriteSome(std::span<iovec> pieces);

  const MigrationChannel& channel_;
  const Interrupt& interrupt_;
  std::vector<iovec> rest_;
};

}  // namespace vmsave
