// A QEMU that takes a guest over multifd: it listens on a socket of its own, and is connected to several times.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "format/multifd_packet.h"
#include "qemu/migration_settings.h"
#include "qemu/qemu_directory.h"
#include "qemu/qmp_client.h"
#include "qemu/socket_sink.h"
#include "reader/multifd_sender.h"

namespace vmsave {

// At what a QEMU of that version synchronises its channels.
SyncAt MultifdSyncAt(const QemuVersion& version);

class MultifdIncoming {
 public:
  // Makes the directory for QEMU's socket, which only it and this process can enter. Throws Error{kFailed} where QEMU
  // would not reach it (another user's, in a container); QEMU was asked for nothing then, and another way will do.
  // REQUIRES: WhyNoMultifd(qmp) is empty, channels <= kMaxMultifdChannels.
  MultifdIncoming(QmpClient& qmp, unsigned channels, const Interrupt& interrupt,
                  const PrivateDirectory::Announce& announce = {});

  // Lets QEMU listen, and connects the main stream, then the channels, each with its hello: QEMU < 8.0 takes the first
  // connection for the main stream, a newer one looks at what it is sent. `uuid`: the guest's as QMP tells it, empty if
  // it has none. Throws Error{kFailed} where QEMU does not listen (QEMU 10.0 takes no guest in any other way after
  // that), or another process than the one behind QMP does.
  void Connect(const std::string& uuid);

  // REQUIRES: Connect was called.
  MultifdTarget target();

  // The end of the main stream.
  void ShutDownSending();

 private:
  void Listen();
  FileDescriptor ConnectOnce() const;
  void CheckListener(const FileDescriptor& socket) const;

  QmpClient& qmp_;
  unsigned channels_;
  const Interrupt& interrupt_;
  QemuDirectory directory_;
  std::string socket_path_;
  std::optional<MigrationSettings> settings_;  // from Connect on
  std::deque<FileDescriptor> sockets_;         // of the main stream, then of the channels
  std::deque<SocketSink> sinks_;               // likewise
};

}  // namespace vmsave
