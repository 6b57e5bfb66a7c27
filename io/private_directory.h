// A short-lived directory that only one user can enter, for sockets and other files that two programs share.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

#include "io/file_descriptor.h"

namespace vmsave {

// Mode 0700. Made under $XDG_RUNTIME_DIR, else $TMPDIR, else /tmp: the first that is an absolute path, can be written
// to, and leaves names in it short enough for a unix socket. One that the environment names is passed over where it is
// neither root's nor the effective user's, or others can rename what is in it. The destructor removes it with the files
// and sockets directly in it; a directory that something made in it is left there. Not synchronised.
class PrivateDirectory {
 public:
  // Who is to reach it. The places of kOwnUser may lie where other users cannot come (as /run/user/0); kAnyUser is made
  // in /tmp.
  enum class Reach { kOwnUser, kAnyUser };

  // Longer names may not fit into a socket's address (sun_path takes 108 bytes).
  static constexpr std::size_t kMaxNameBytes = 32;

  // Told where it is going to be, before it is: who has to remove it should this process be killed.
  using Announce = std::function<void(const std::string& path)>;

  // Throws Error{kFailed}.
  explicit PrivateDirectory(Reach reach = Reach::kOwnUser, const Announce& announce = {});
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;
  ~PrivateDirectory();

  const std::string& path() const { return path_; }
  std::string Path(std::string_view name) const;

  // From now on that user alone (and root) can enter it; what is in it keeps its owner. Make what this process makes
  // there first: the new owner can put anything in its place, links too. Needs root, and a directory of kAnyUser.
  // Throws Error{kFailed}.
  void GiveTo(uid_t user, gid_t group);

  // Whether the destructor leaves it there, because somebody else will need it.
  void Keep(bool keep) { kept_ = keep; }

 private:
  std::string path_;
  FileDescriptor directory_;
  bool kept_ = false;
};

// Removes one that the process which made it has left behind, with the sockets in it, if nothing else is.
void RemovePrivateDirectory(const std::string& path) noexcept;

}  // namespace vmsave
