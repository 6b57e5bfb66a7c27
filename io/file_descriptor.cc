#include "io/file_descriptor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace vmsave {

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (number_ >= 0) ::close(number_);
    number_ = std::exchange(other.number_, -1);
    name_ = std::move(other.name_);
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (number_ >= 0) ::close(number_);
}

void FileDescriptor::Close() {
  const int number = std::exchange(number_, -1);
  if (number >= 0 && ::close(number) != 0 && errno != EINTR) {
    throw Error::FromErrno(fmt::format("cannot close {}", name_), errno);
  }
}

FileDescriptor OpenFile(const std::string& path, int flags, mode_t mode) {
  const int number = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (number < 0) throw Error::FromErrno(fmt::format("cannot open {}", path), errno);
  return FileDescriptor(number, path);
}

void WriteAt(const FileDescriptor& file, std::span<const std::byte> bytes, FileOffset offset) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file.number(), bytes.data(), bytes.size(), static_cast<off_t>(offset.value()));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      throw Error::FromErrno(fmt::format("cannot write {} at byte {}", file.name(), offset.value()),
                             done < 0 ? errno : ENOSPC);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    offset += ByteCount{static_cast<std::uint64_t>(done)};
  }
}

std::size_t ReadUpTo(const FileDescriptor& file, std::span<std::byte> bytes, FileOffset offset) {
  std::size_t total = 0;
  while (total < bytes.size()) {
    const std::span<std::byte> rest = bytes.subspan(total);
    const FileOffset from = offset + ByteCount{total};
    const ssize_t done = ::pread(file.number(), rest.data(), rest.size(), static_cast<off_t>(from.value()));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      throw Error::FromErrno(fmt::format("cannot read {} at byte {}", file.name(), from.value()), errno);
    }
    if (done == 0) break;
    total += static_cast<std::size_t>(done);
  }
  return total;
}

void ReadAt(const FileDescriptor& file, std::span<std::byte> bytes, FileOffset offset) {
  const std::size_t done = ReadUpTo(file, bytes, offset);
  if (done < bytes.size()) {
    throw Error(ErrorKind::kDamaged, fmt::format("cannot read {}", file.name()),
                fmt::format("it ends early, after {} bytes", (offset + ByteCount{done}).value()));
  }
}

void SyncData(const FileDescriptor& file) {
  if (::fdatasync(file.number()) != 0) throw Error::FromErrno(fmt::format("cannot sync {}", file.name()), errno);
}

ByteCount FileLength(const FileDescriptor& file) {
  struct stat status {};
  if (::fstat(file.number(), &status) != 0) {
    throw Error::FromErrno(fmt::format("cannot look at {}", file.name()), errno);
  }
  return ByteCount{static_cast<std::uint64_t>(status.st_size)};
}

void SetFileLength(const FileDescriptor& file, ByteCount length) {
  if (::ftruncate(file.number(), static_cast<off_t>(length.value())) == 0) return;
  throw Error::FromErrno(fmt::format("cannot make {} {} bytes long", file.name(), length.value()), errno);
}

}  // namespace vmsave
