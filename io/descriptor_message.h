// Messages on unix sockets that carry a file descriptor.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <optional>
#include <span>
#include <string>

#include "io/file_descriptor.h"

namespace vmsave {

// One sendmsg(2) of all parts, with its result and errno; no SIGPIPE. `descriptor` >= 0 goes along with the first byte
// (SCM_RIGHTS): the other process gets a duplicate.
ssize_t SendWithDescriptor(int socket, std::span<iovec> parts, int descriptor);

struct DescriptorMessage {
  std::string text;
  FileDescriptor descriptor;  // not valid where none came along
};

// One message, as far as `room` takes it, which is not empty. Nothing at the end of the connection, or where it fails.
std::optional<DescriptorMessage> ReceiveWithDescriptor(const FileDescriptor& socket, std::span<char> room);

}  // namespace vmsave
