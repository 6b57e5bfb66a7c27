// The connections of a multifd migration out of a guest.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "qemu/qemu_directory.h"

namespace vmsave {

struct MultifdSockets {
  FileDescriptor main;
  std::vector<FileDescriptor> channels;  // by number; each has said its hello
};

class SaveGuard;

// A unix socket in a private directory, which nobody but QEMU can reach.
class MultifdListener {
 public:
  // `guard`, where there is one, accepts and holds every connection: QEMU is not to lose one when this process is
  // killed. `patience`: how long Accept waits for QEMU. Throws Error{kFailed}, as QemuDirectory does.
  explicit MultifdListener(const QmpClient& qmp, SaveGuard* guard = nullptr,
                           std::chrono::milliseconds patience = std::chrono::seconds(30));

  // For `migrate`, which makes a main connection and one for each channel. The guard waits for these from here on.
  // Once.
  std::string UriFor(unsigned channels);

  // Waits until QEMU has made all connections: a main one, which starts with the stream's magic, and channels, which
  // start with a hello, in any order. `check` is called now and then; what it throws ends the waiting. Throws
  // Error{kFailed} that advises another way: `check` has thrown one, a connection is missing or says nothing, another
  // process made one; Error{kDamaged}: a second main stream, a channel that is no channel, is out of range or comes
  // twice. Connections that were made stay open then, as long as this lives. Once, after
  // UriFor.
  MultifdSockets Accept(const Interrupt& interrupt, const std::function<void()>& check);

 private:
  FileDescriptor Accepted(const Interrupt& interrupt, const std::function<void()>& check);
  FileDescriptor AcceptOne(const Interrupt& interrupt, const std::function<void()>& check);
  void CheckPeer(const FileDescriptor& connection) const;

  pid_t qemu_;  // 0 where it is not known
  unsigned channels_ = 0;
  SaveGuard* guard_;
  std::chrono::milliseconds patience_;
  QemuDirectory directory_;
  FileDescriptor socket_;
  std::vector<FileDescriptor> connections_;  // that wait for their place in sockets_
  MultifdSockets sockets_;
};

}  // namespace vmsave
