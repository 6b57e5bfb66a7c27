// A directory for sockets between this process and one QEMU.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "io/private_directory.h"
#include "qemu/qmp_client.h"

namespace vmsave {

// Nobody but this process, QEMU's user and root can enter it. Removed, with what is in it, by the destructor.
class QemuDirectory {
 public:
  // For this process alone at first. `announce` as of PrivateDirectory. Throws Error{kFailed} where QEMU would not see
  // it, or where that cannot be told (a container, a chroot): a connection by descriptor is what remains then.
  explicit QemuDirectory(const QmpClient& qmp, const PrivateDirectory::Announce& announce = {});

  std::string Path(std::string_view name) const { return directory_.Path(name); }

  // Lets QEMU's user in, where that is another one, and connect to `socket`, which this process has made there, if it
  // is named. Needs root for another user.
  void LetQemuIn(std::string_view socket = "");

 private:
  struct User {
    uid_t user;
    gid_t group;
  };
  static std::optional<User> OtherUser(pid_t process);

  std::optional<User> qemu_;  // where it is another one than this process's
  PrivateDirectory directory_;
};

}  // namespace vmsave
