// What QEMU sends over a socket, as it comes.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <string>
#include <vector>

#include "format/stream_reader.h"
#include "io/file_descriptor.h"
#include "io/interrupt.h"

namespace vmsave {

// Waits for bytes on a socket. Gives way to the interrupt, and to whatever `check` throws: it is called now and then
// while nothing comes.
class SocketReader {
 public:
  using Check = std::function<void()>;

  // Keeps references to socket and interrupt.
  SocketReader(
      const FileDescriptor& socket, const Interrupt& interrupt, Check check = [] {});

  // Bytes that were read; 0 only at the end. Throws Error{kFailed}, Error{kInterrupted}.
  std::size_t ReadSome(std::span<std::byte> out);

  // Fills all of the pieces. Error{kDamaged} "it ends early" where the other side closes before that.
  void ReadAll(std::span<const iovec> pieces);
  void ReadAll(std::span<std::byte> out);

  // The same, but false where the other side has closed before the first byte.
  bool ReadAllOrEnd(std::span<std::byte> out);

  const std::string& name() const { return socket_.name(); }

 private:
  std::size_t Receive(std::span<const iovec> pieces);
  [[noreturn]] void EndsEarly() const;

  const FileDescriptor& socket_;
  const Interrupt& interrupt_;
  Check check_;
  std::vector<iovec> rest_;
};

// Whether the other side sends nothing more than what is there already.
bool IsClosedByPeer(const FileDescriptor& socket);

// A stream's bytes from a socket, through a buffer.
class SocketSource : public ByteSource {
 public:
  explicit SocketSource(SocketReader& reader);

  std::size_t ReadSome(std::span<std::byte> out) override;
  void StepBack() override;
  FileOffset position() const override { return position_; }
  std::string_view name() const override { return reader_.name(); }

 private:
  SocketReader& reader_;
  FileOffset position_;
  std::vector<std::byte> buffer_;
  std::span<const std::byte> ready_;
};

}  // namespace vmsave
