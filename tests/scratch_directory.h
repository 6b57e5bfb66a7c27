// A directory of its own for each test that needs files.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "format/error.h"

namespace vmsave {

// Made under $VMSAVE_TEST_DIR or else under the current directory, not under /tmp: that is often a tmpfs, which is not
// what images are written to. Removed with all that is in it by the destructor.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    const char* wanted = std::getenv("VMSAVE_TEST_DIR");
    const std::filesystem::path parent = wanted != nullptr ? wanted : std::filesystem::current_path();
    std::string pattern = (parent / "vmsave-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw Error::FromErrno("cannot create " + pattern, errno);
    path_ = pattern;
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }
  std::string Path(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace vmsave
