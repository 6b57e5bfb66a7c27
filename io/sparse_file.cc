#include "io/sparse_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace vmsave {

std::optional<FileRange> NextData(const FileDescriptor& file, FileOffset from, FileOffset end) {
  const std::optional<FileOffset> begin = NextDataBegin(file, from, end);
  if (!begin) return std::nullopt;
  const off_t hole = ::lseek(file.number(), static_cast<off_t>(begin->value()), SEEK_HOLE);
  if (hole < 0) return FileRange{*begin, end};
  return FileRange{*begin, std::min(end, FileOffset{RoundUp(static_cast<std::uint64_t>(hole), kPageBytes)})};
}

std::optional<FileOffset> NextDataBegin(const FileDescriptor& file, FileOffset from, FileOffset end) {
  if (from >= end) return std::nullopt;
  const off_t data = ::lseek(file.number(), static_cast<off_t>(from.value()), SEEK_DATA);
  if (data < 0) return errno == ENXIO ? std::nullopt : std::optional(from);
  const FileOffset begin = std::max(from, FileOffset{RoundDown(static_cast<std::uint64_t>(data), kPageBytes)});
  return begin < end ? std::optional(begin) : std::nullopt;
}

bool HoldsData(const FileDescriptor& file, FileRange range) {
  return NextDataBegin(file, range.begin, range.end).has_value();
}

bool IsFull(const FileDescriptor& file) {
  struct stat status {};
  constexpr std::int64_t kStorageBlock = 512;  // stat(2)
  return ::fstat(file.number(), &status) == 0 &&
         status.st_blocks >= (status.st_size + kStorageBlock - 1) / kStorageBlock;
}

ByteCount CountData(const FileDescriptor& file, FileRange range, ByteCount enough) {
  ByteCount found;
  for (auto data = NextData(file, range.begin, range.end); data && found < enough;
       data = NextData(file, data->end, range.end)) {
    found += data->end - data->begin;
  }
  return found;
}

FileOffset EndOfData(const FileDescriptor& file, FileRange range) {
  FileOffset end = range.begin;
  while (const auto data = NextData(file, end, range.end)) end = data->end;
  return end;
}

bool LiesInHugePages(const FileDescriptor& file) {
  struct statfs file_system {};
  return ::fstatfs(file.number(), &file_system) == 0 && file_system.f_type == HUGETLBFS_MAGIC;
}

bool PunchHole(const FileDescriptor& file, FileRange range) {
  if (LiesInHugePages(file)) return false;
  const ByteCount length = range.end - range.begin;
  if (::fallocate(file.number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.begin.value()),
                  static_cast<off_t>(length.value())) == 0) {
    return true;
  }
  if (errno == EOPNOTSUPP || errno == ENOSYS) return false;
  throw Error::FromErrno(fmt::format("cannot clear {} at byte {}", file.name(), range.begin.value()), errno);
}

}  // namespace vmsave
