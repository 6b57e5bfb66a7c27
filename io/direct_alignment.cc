#include "io/direct_alignment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <optional>

#include "io/aligned_buffer.h"

namespace vmsave {
namespace {

constexpr std::string_view kAdvice = "leave --bypass-cache out";

Error NoDirectIo(const std::string& name) {
  return {ErrorKind::kFailed, fmt::format("cannot bypass the page cache for {}", name),
          "the file system has no direct I/O", kAdvice};
}

// Nothing where the kernel or the file system does not tell.
std::optional<DirectAlignment> AskFileSystem(const FileDescriptor& file) {
  struct statx status {};
  if (::statx(file.number(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0) return std::nullopt;
  if ((status.stx_mask & STATX_DIOALIGN) == 0) return std::nullopt;
  // This is how the kernel says that this very file has none (an encrypted one, say).
  if (status.stx_dio_mem_align == 0 || status.stx_dio_offset_align == 0) throw NoDirectIo(file.name());
  return DirectAlignment{status.stx_dio_mem_align, status.stx_dio_offset_align};
}

void Check(const FileDescriptor& file, DirectAlignment alignment) {
  if (alignment.memory <= kPageBytes && alignment.file_offset <= kPageBytes && std::has_single_bit(alignment.memory) &&
      std::has_single_bit(alignment.file_offset)) {
    return;
  }
  throw Error(ErrorKind::kFailed, fmt::format("cannot bypass the page cache for {}", file.name()),
              fmt::format("it demands direct I/O aligned to {} bytes of memory and {} of the file, and images are "
                          "aligned to {}",
                          alignment.memory, alignment.file_offset, kPageBytes),
              kAdvice);
}

void TryOneRead(const FileDescriptor& file) {
  const int flags = ::fcntl(file.number(), F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY) return;
  AlignedBuffer page(kPageBytes, kPageBytes);
  ssize_t done = 0;
  do {
    done = ::pread(file.number(), page.bytes().data(), page.size(), 0);
  } while (done < 0 && errno == EINTR);
  if (done >= 0) return;
  if (errno == EINVAL) throw NoDirectIo(file.name());
  throw Error::FromErrno(fmt::format("cannot read {}", file.name()), errno);
}

}  // namespace

DirectAlignment AskDirectAlignment(const FileDescriptor& file) {
  if (const std::optional<DirectAlignment> told = AskFileSystem(file)) {
    Check(file, *told);
    return *told;
  }
  TryOneRead(file);
  return {kPageBytes, kPageBytes, AlignmentSource::kAssumed};
}

FileDescriptor OpenDirect(const std::string& path, int flags) {
  return OpenDirectAt(FileDescriptor(), path, flags, path);
}

FileDescriptor OpenDirectAt(const FileDescriptor& directory, const std::string& name, int flags,
                            const std::string& path) {
  const int in = directory.valid() ? directory.number() : AT_FDCWD;
  const int number = ::openat(in, name.c_str(), flags | O_DIRECT | O_CLOEXEC);
  if (number < 0 && errno == EINVAL) throw NoDirectIo(path);
  if (number < 0) throw Error::FromErrno(fmt::format("cannot open {}", path), errno);
  return {number, path};
}

}  // namespace vmsave
