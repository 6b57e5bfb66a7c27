// A directory of its own for each test that needs files.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "format/error.h"

namespace vmsave {

// Removed with all that is in it by the destructor.
class ScratchDirectory {
 public:
  // Made under $VMSAVE_TEST_DIR or else under the current directory, not under /tmp: that is often a tmpfs, which is
  // not what images are written to.
  ScratchDirectory() : ScratchDirectory(UsualParent()) {}

  explicit ScratchDirectory(const std::filesystem::path& parent) {
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
  static std::filesystem::path UsualParent() {
    const char* wanted = std::getenv("VMSAVE_TEST_DIR");
    return wanted != nullptr ? wanted : std::filesystem::current_path();
  }

  std::filesystem::path path_;
};

}  // namespace vmsave
