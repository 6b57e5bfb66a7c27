#include "qemu/qemu_directory.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <system_error>

namespace vmsave {
namespace {

constexpr std::string_view kCannotShare = "cannot share a directory with QEMU";

bool SameFile(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

// Why a path does not mean the same directory to QEMU as to this process, or why that cannot be told; empty if it does.
// The kernel lets nobody follow /proc/PID/root who could not trace that process (proc(5)).
std::string WhyNotSeen(pid_t qemu, const std::string& path) {
  if (qemu <= 0) return "QEMU's process cannot be seen from here: it may be in a container";
  const std::string root = fmt::format("/proc/{}/root", qemu);
  struct stat status {};
  if (::stat(root.c_str(), &status) != 0) {
    return fmt::format("it cannot be told whether QEMU sees this process's files: {}: {}", root,
                       std::generic_category().message(errno));
  }
  struct stat here {};
  if (::stat(path.c_str(), &here) == 0 && ::stat((root + path).c_str(), &status) == 0 && SameFile(here, status)) {
    return "";
  }
  return "QEMU does not see this process's files: it may be in a container or a chroot";
}

}  // namespace

QemuDirectory::QemuDirectory(const QmpClient& qmp, const PrivateDirectory::Announce& announce)
    : qemu_(OtherUser(qmp.peer_pid())),
      directory_(qemu_ ? PrivateDirectory::Reach::kAnyUser : PrivateDirectory::Reach::kOwnUser, announce) {
  const std::string why_not = WhyNotSeen(qmp.peer_pid(), directory_.path());
  if (!why_not.empty()) throw Error(ErrorKind::kFailed, kCannotShare, why_not);
}

void QemuDirectory::LetQemuIn(std::string_view socket) {
  if (!qemu_) return;
  if (!socket.empty() && ::lchown(Path(socket).c_str(), qemu_->user, qemu_->group) != 0) {
    throw Error(ErrorKind::kFailed, kCannotShare,
                fmt::format("QEMU's user cannot be let in: {}", std::generic_category().message(errno)),
                "run as the user of QEMU, or as root");
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
