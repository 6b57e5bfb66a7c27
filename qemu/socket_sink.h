// What QEMU is sent over a socket.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "io/file_descriptor.h"
#include "io/interrupt.h"
#include "reader/stream_sender.h"

namespace vmsave {

// Gives way to the interrupt: Write then throws Error{kInterrupted}, with a part sent; and to whatever `check` throws,
// which is called now and then while nobody reads. One thread's at a time. Keeps references.
class SocketSink : public ByteSink {
 public:
  using ByteSink::Write;
  SocketSink(
      const FileDescriptor& socket, const Interrupt& interrupt, std::function<void()> check = [] {})
      : socket_(socket), interrupt_(interrupt), check_(std::move(check)) {}

  // Throws Error{kFailed} where QEMU has closed its end.
  void Write(std::span<const iovec> pieces) override;

 private:
  std::size_t WriteSome(std::span<iovec> pieces);

  const FileDescriptor& socket_;
  const Interrupt& interrupt_;
  const std::function<void()> check_;
  std::vector<iovec> rest_;
};

}  // namespace vmsave
