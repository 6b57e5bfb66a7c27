#include "qemu/qemu_directory.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

namespace vmsave {
namespace {

// Whether a path means the same directory to the process as to this one. False where that cannot be told.
bool SeesDirectory(pid_t process, const std::string& path) {
  struct stat here {};
  struct stat there {};
  const std::string seen_from_there = fmt::format("/proc/{}/root{}", process, path);
  if (::stat(path.c_str(), &here) != 0 || ::stat(seen_from_there.c_str(), &there) != 0) return false;
  return here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

}  // namespace

QemuDirectory::QemuDirectory(const QmpClient& qmp)
    : qemu_(OtherUser(qmp.peer_pid())),
      directory_(qemu_ ? PrivateDirectory::Reach::kAnyUser : PrivateDirectory::Reach::kOwnUser) {
  if (SeesDirectory(qmp.peer_pid(), directory_.path())) return;
  throw Error(ErrorKind::kFailed, "cannot share a directory with QEMU",
              fmt::format("it does not see {}, or it cannot be told whether it does", directory_.path()));
}

void QemuDirectory::LetQemuIn(std::string_view socket) {
  if (!qemu_) return;
  if (!socket.empty() && ::lchown(Path(socket).c_str(), qemu_->user, qemu_->group) != 0) {
    throw Error::FromErrno("cannot let QEMU's user connect", errno, "run as the user of QEMU, or as root");
  }
  directory_.GiveTo(qemu_->user, qemu_->group);
}

// Whom the process acts as: the second number of the lines Uid and Gid in /proc/PID/status (proc(5)). The owner of
// /proc/PID is not it: root, for a process that gave up its rights.
std::optional<QemuDirectory::User> QemuDirectory::OtherUser(pid_t process) {
  std::ifstream status(fmt::format("/proc/{}/status", process));
  std::optional<uid_t> user;
  for (std::string key; status >> key;) {
    uid_t real = 0;
    uid_t effective = 0;
    if (key == "Uid:" && status >> real >> effective) user = effective;
    if (key != "Gid:" || !user || !(status >> real >> effective)) continue;
    return *user == ::geteuid() ? std::nullopt : std::optional(User{*user, effective});
  }
  return std::nullopt;
}

}  // namespace vmsave
