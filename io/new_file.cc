#include "io/new_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <string_view>

#include "io/random_name.h"

namespace vmsave {
namespace {

constexpr std::size_t kSuffixBytes = 6;
constexpr int kAttempts = 100;

Error CannotCreate(const std::string& path, std::string_view why, std::string_view advice = "") {
  return {ErrorKind::kFailed, fmt::format("cannot create {}", path), why, advice};
}

std::string TargetName(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  if (path.empty()) throw CannotCreate("the image", "its path is empty");
  if (name.empty()) throw CannotCreate(path, "it is the name of a directory", "name a file in it");
  return name;
}

FileDescriptor OpenDirectoryOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? std::string(".") : parent.string();
  const int number = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (number >= 0) return {number, directory};
  switch (errno) {
    case ENOENT:
      throw CannotCreate(path, fmt::format("there is no directory {}", directory), "create it first");
    case ENOTDIR:
      throw CannotCreate(path, fmt::format("{} is not a directory", directory));
    case EACCES:
      throw CannotCreate(path, fmt::format("the directory {} may not be read by this user", directory));
    default:
      throw Error::FromErrno(fmt::format("cannot open the directory {}", directory), errno);
  }
}

void RequireRegularFile(const std::string& path, mode_t mode) {
  constexpr std::string_view kAdvice = "an image is a regular file";
  switch (mode & S_IFMT) {
    case S_IFREG:
      return;
    case S_IFDIR:
      throw CannotCreate(path, "it is a directory", "name a file in it");
    case S_IFLNK:
      throw CannotCreate(path, "it is a symbolic link", "name the file that it points to");
    case S_IFIFO:
      throw CannotCreate(path, "it is a pipe", kAdvice);
    case S_IFSOCK:
      throw CannotCreate(path, "it is a socket", kAdvice);
    default:
      throw CannotCreate(path, "it is a device", kAdvice);
  }
}

// ".NAME.XXXXXX", with NAME cut, at a character of UTF-8, to what a directory entry can hold.
std::string InventTemporaryName(const std::string& target_name) {
  const auto continues_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; };
  std::size_t kept = std::size_t{NAME_MAX} - kSuffixBytes - 2;
  if (target_name.size() <= kept) {
    kept = target_name.size();
  } else {
    while (kept > 0 && continues_character(target_name[kept])) --kept;
  }
  return fmt::format(".{}.{}", std::string_view(target_name).substr(0, kept), RandomSuffix());
}

Error CannotCreateIn(const std::string& directory, const std::string& path, int error_number) {
  switch (error_number) {
    case EACCES:
    case EPERM:
      return CannotCreate(path, fmt::format("the directory {} is not writable for this user", directory));
    case EROFS:
      return CannotCreate(path, fmt::format("the file system of {} is read-only", directory));
    case ENOSPC:
    case EDQUOT:
      return Error::FromErrno(fmt::format("cannot create {}", path), error_number,
                              "free some space on that file system");
    default:
      return Error::FromErrno(fmt::format("cannot create {}", path), error_number);
  }
}

// An image holds all that the guest had in memory, so a umask must not decide who reads it, nor lock us out.
void MakePrivate(const FileDescriptor& file) {
  struct stat status {};
  if (::fstat(file.number(), &status) == 0 && (status.st_mode & 07777U) == 0600U) return;
  if (::fchmod(file.number(), 0600) == 0) return;
  // FAT and its like keep no modes; there the options of the mount say who reads.
  if (errno != EPERM && errno != EOPNOTSUPP) {
    throw Error::FromErrno(fmt::format("cannot set the permissions of {}", file.name()), errno);
  }
}

bool NameTheSameFile(int directory, const char* one, const char* other) {
  struct stat a {};
  struct stat b {};
  return ::fstatat(directory, one, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
         ::fstatat(directory, other, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Returns 0 or an errno value; EEXIST where `to` is another file.
int Link(int directory, const char* from, const char* to) {
  if (::linkat(directory, from, directory, to, 0) == 0) return 0;
  const int error_number = errno;
  // NFS asks again where an answer is lost, and is told of the link that it made itself.
  return error_number == EEXIST && NameTheSameFile(directory, from, to) ? 0 : error_number;
}

// Returns 0 or an errno value; EEXIST where `to` is taken. Empties `from` once nothing is called so any more.
int RenameWithoutReplacing(int directory, std::string& from, const char* to) {
  if (::renameat2(directory, from.c_str(), directory, to, RENAME_NOREPLACE) == 0) {
    from.clear();
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system without such a rename (NFS): link(2) replaces nothing either.
  const int error_number = Link(directory, from.c_str(), to);
  if (error_number == 0 && ::unlinkat(directory, from.c_str(), 0) == 0) from.clear();
  if (error_number == 0 || error_number == EEXIST) return error_number;
  // One without hard links as well (FAT): looking first leaves a gap, but there is nothing better.
  struct stat status {};
  if (::fstatat(directory, to, &status, AT_SYMLINK_NOFOLLOW) == 0) return EEXIST;
  if (::renameat(directory, from.c_str(), directory, to) != 0) return errno;
  from.clear();
  return 0;
}

}  // namespace

NewFile::Temporary::~Temporary() {
  if (!name.empty()) ::unlinkat(directory.number(), name.c_str(), 0);
}

NewFile::NewFile(const std::string& path, Replace replace, CacheUse cache, const Announce& announce)
    : path_(path), target_name_(TargetName(path)), replace_(replace), temporary_(OpenDirectoryOf(path)) {
  CheckTarget();
  buffered_ = CreateTemporary(announce);
  MakePrivate(buffered_);
  if (cache == CacheUse::kBypass) {
    direct_ = OpenDirectAt(temporary_.directory, temporary_.name, O_RDWR | O_NOFOLLOW, buffered_.name());
    alignment_ = AskDirectAlignment(*direct_);
  }
}

NewFile::NewFile(NewFile&& other) noexcept = default;
NewFile::~NewFile() = default;

void NewFile::CheckTarget() const {
  struct stat status {};
  if (::fstatat(temporary_.directory.number(), target_name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;
    throw Error::FromErrno(fmt::format("cannot create {}", path_), errno);
  }
  RequireRegularFile(path_, status.st_mode);
  if (replace_ == Replace::kNo) throw CannotCreate(path_, "it exists already", "use --force to replace it");
}

FileDescriptor NewFile::CreateTemporary(const Announce& announce) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string name = InventTemporaryName(target_name_);
    if (announce) announce(temporary_.directory, name);
    const int number = ::openat(temporary_.directory.number(), name.c_str(),
                                O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (number >= 0) {
      temporary_.name = std::move(name);
      return {number, std::filesystem::path(path_).replace_filename(temporary_.name).string()};
    }
    if (errno != EEXIST) throw CannotCreateIn(temporary_.directory.name(), path_, errno);
  }
  throw CannotCreateIn(temporary_.directory.name(), path_, EEXIST);
}

ByteCount NewFile::FreeSpace() const {
  struct statvfs status {};
  if (::fstatvfs(temporary_.directory.number(), &status) != 0) {
    throw Error::FromErrno(fmt::format("cannot ask for the free space of {}", temporary_.directory.name()), errno);
  }
  return ByteCount{CheckedMultiply(status.f_bavail, status.f_frsize)};
}

void NewFile::Sync() const {
  // Of the file, not of a descriptor: it covers what went through the direct one.
  SyncData(buffered_);
}

void NewFile::Publish() {
  Sync();
  if (direct_) direct_->Close();
  buffered_.Close();
  GiveTargetName();
  SyncDirectory();
}

void NewFile::GiveTargetName() {
  const int directory = temporary_.directory.number();
  int error_number = 0;
  if (replace_ == Replace::kNo) {
    error_number = RenameWithoutReplacing(directory, temporary_.name, target_name_.c_str());
  } else if (::renameat(directory, temporary_.name.c_str(), directory, target_name_.c_str()) != 0) {
    error_number = errno;
  } else {
    temporary_.name.clear();
  }
  if (error_number == EEXIST && replace_ == Replace::kNo) {
    throw CannotCreate(path_, "it exists already, since a moment ago", "use --force to replace it");
  }
  if (error_number != 0) {
    throw Error::FromErrno(fmt::format("cannot rename the finished file to {}", path_), error_number);
  }
}

void NewFile::SyncDirectory() const {
  if (::fsync(temporary_.directory.number()) == 0) return;
  if (errno == EINVAL) return;  // a file system whose directories have nothing to sync
  throw NameNotDurable(
      Error::FromErrno(fmt::format("cannot sync the directory {}", temporary_.directory.name()), errno,
                       fmt::format("{} is complete, but a power failure could still undo its name", path_)));
}

}  // namespace vmsave
