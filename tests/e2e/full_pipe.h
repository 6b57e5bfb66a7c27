// A reader who does not read.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "io/file_descriptor.h"

namespace vmsave {

// A pipe with no room left, that this process could read but does not.
class FullPipe {
 public:
  explicit FullPipe(const std::string& path) : path_(path) {
    if (::mkfifo(path.c_str(), 0600) != 0) throw Error::FromErrno("cannot make a pipe", errno);
    pipe_ = OpenFile(path, O_RDWR | O_NONBLOCK);
    const std::string page(4096, 'x');
    while (::write(pipe_.number(), page.data(), page.size()) > 0) {
    }
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  FileDescriptor pipe_;
};

}  // namespace vmsave
