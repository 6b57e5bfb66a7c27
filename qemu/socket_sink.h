// What QEMU is sent over a socket.
#pragma once

#include <vector>

#include "io/file_descriptor.h"
#include "io/interrupt.h"
#include "reader/stream_sender.h"

namespace vmsave {

// Gives way to the interrupt: Write then throws Error{kInterrupted}, with a part sent. One thread's at a time. Keeps
// references.
class SocketSink : public ByteSink {
 public:
  using ByteSink::Write;
  SocketSink(const FileDescriptor& socket, const Interrupt& interrupt) : socket_(socket), interrupt_(interrupt) {}

  // Throws Error{kFailed} where QEMU has closed its end.
  void Write(std::span<const iovec> pieces) override;

 private:
  std::size_t WriteSome(std::span<iovec> pieces);

  const FileDescriptor& socket_;
  const Interrupt& interrupt_;
  std::vector<iovec> rest_;
};

}  // namespace vmsave
