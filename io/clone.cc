#include "io/clone.h"

#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace vmsave {

bool CloneFile(const FileDescriptor& from, const FileDescriptor& to) {
  if (::ioctl(to.number(), FICLONE, from.number()) == 0) return true;
  switch (errno) {
    case EBADF:       // not open in the way that it takes
    case EINVAL:      // a file system that has it, but not for these files
    case ENOSYS:      // old kernels and
    case ENOTTY:      // file systems that
    case EOPNOTSUPP:  // do not have it
    case EPERM:       // forbidden here
    case EXDEV:       // two file systems
      return false;
    default:
      throw Error::FromErrno(fmt::format("cannot clone {} into {}", from.name(), to.name()), errno);
  }
}

}  // namespace vmsave
