// Messages on unix sockets that carry a file descriptor.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <span>

namespace vmsave {

// One sendmsg(2) of all parts, with its result and errno; no SIGPIPE. `descriptor` >= 0 goes along with the first byte
// (SCM_RIGHTS): the other process gets a duplicate.
ssize_t SendWithDescriptor(int socket, std::span<iovec> parts, int descriptor);

}  // namespace vmsave
