#include "io/private_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <vector>

#include "format/error.h"
#include "io/random_name.h"

namespace vmsave {
namespace {

using Reach = PrivateDirectory::Reach;

// Nobody else can rename what is made there, and put his own in its place.
bool IsTrusted(const char* place) {
  struct stat status {};
  if (place == nullptr || place[0] != '/' || ::stat(place, &status) != 0) return false;
  const bool is_of_others = status.st_uid != ::geteuid() && status.st_uid != 0;
  const bool others_may_write = (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
  return !is_of_others && (!others_may_write || (status.st_mode & S_ISVTX) != 0);
}

// The environment may be another user's (su, sudo -E).
std::vector<std::string> Places(Reach reach) {
  std::vector<std::string> places;
  if (reach == Reach::kOwnUser) {
    for (const char* variable : {"XDG_RUNTIME_DIR", "TMPDIR"}) {
      const char* place = std::getenv(variable);
      if (IsTrusted(place)) places.emplace_back(place);
    }
  }
  places.emplace_back("/tmp");
  return places;
}

std::string MakeDirectory(Reach reach, const PrivateDirectory::Announce& announce) {
  for (const std::string& place : Places(reach)) {
    std::string path = fmt::format("{}/vmsave-{}", place, RandomSuffix());
    if (path.size() + 1 + PrivateDirectory::kMaxNameBytes >= sizeof(sockaddr_un::sun_path)) continue;
    if (announce) announce(path);
    if (::mkdir(path.c_str(), S_IRWXU) == 0) return path;
  }
  if (reach == Reach::kAnyUser) throw Error::FromErrno("cannot make a private directory in /tmp", errno);
  throw Error(ErrorKind::kFailed, "cannot make a private directory",
              "none can be made in $XDG_RUNTIME_DIR, $TMPDIR or /tmp, or their names are too long",
              "set TMPDIR to a directory of yours with a short name, that nobody else can write to");
}

// Not through a link that somebody has put in its place.
FileDescriptor OpenDirectory(const std::string& path) {
  try {
    return OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch (const Error&) {
    ::rmdir(path.c_str());
    throw;
  }
}

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using DirectoryStream = std::unique_ptr<DIR, CloseDirectory>;

DirectoryStream ReadFromStart(const FileDescriptor& directory) {
  const int number = ::openat(directory.number(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DirectoryStream stream(number < 0 ? nullptr : ::fdopendir(number));
  if (stream == nullptr && number >= 0) ::close(number);
  return stream;
}

// unlinkat(2) neither follows links nor removes directories.
void RemoveFilesIn(const FileDescriptor& directory) {
  const DirectoryStream stream = ReadFromStart(directory);
  if (stream == nullptr) return;
  while (const dirent* entry = ::readdir(stream.get())) ::unlinkat(directory.number(), &entry->d_name[0], 0);
}

// Taken back first, so that nobody puts more into it meanwhile.
void Remove(const FileDescriptor& directory, const std::string& path) {
  [[maybe_unused]] const int taken = ::fchown(directory.number(), ::geteuid(), ::getegid());
  RemoveFilesIn(directory);
  ::rmdir(path.c_str());
}

}  // namespace

PrivateDirectory::PrivateDirectory(Reach reach, const Announce& announce)
    : path_(MakeDirectory(reach, announce)), directory_(OpenDirectory(path_)) {}

PrivateDirectory::~PrivateDirectory() {
  if (!kept_) Remove(directory_, path_);
}

// Only sockets, and what has become of the directory stays what it is: somebody else may have put his own in its place.
void RemovePrivateDirectory(const std::string& path) noexcept {
  const FileDescriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), path);
  if (!directory.valid()) return;
  if (const DirectoryStream stream = ReadFromStart(directory)) {
    while (const dirent* entry = ::readdir(stream.get())) {
      if (entry->d_type == DT_SOCK) ::unlinkat(directory.number(), &entry->d_name[0], 0);
    }
  }
  ::rmdir(path.c_str());
}

std::string PrivateDirectory::Path(std::string_view name) const {
  return fmt::format("{}/{}", path_, name);
}

void PrivateDirectory::GiveTo(uid_t user, gid_t group) {
  if (::fchown(directory_.number(), user, group) != 0) {
    throw Error::FromErrno(fmt::format("cannot give {} to user {}", path_, user), errno, "run as root");
  }
}

}  // namespace vmsave
