#include "io/sparse_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace vmsave {

std::optional<FileRange> NextData(const FileDescriptor& file, FileOffset from, FileOffset end) {
  if (from >= end) return std::nullopt;
  const off_t data = ::lseek(file.number(), static_cast<off_t>(from.value()), SEEK_DATA);
  if (data < 0) return errno == ENXIO ? std::nullopt : std::optional(FileRange{from, end});
  const FileOffset begin = std::max(from, FileOffset{RoundDown(static_cast<std::uint64_t>(data), kPageBytes)});
  if (begin >= end) return std::nullopt;
  const off_t hole = ::lseek(file.number(), data, SEEK_HOLE);
  if (hole < 0) return FileRange{begin, end};
  return FileRange{begin, std::min(end, FileOffset{RoundUp(static_cast<std::uint64_t>(hole), kPageBytes)})};
}

// It is not asked where the data end: for that the kernel walks over all of them, and so for each absent run of a block
// whose file is full of data.
bool HoldsData(const FileDescriptor& file, FileRange range) {
  if (range.begin >= range.end) return false;
  const off_t data = ::lseek(file.number(), static_cast<off_t>(range.begin.value()), SEEK_DATA);
  if (data < 0) return errno != ENXIO;
  return FileOffset{static_cast<std::uint64_t>(data)} < range.end;
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

bool PunchHole(const FileDescriptor& file, FileRange range) {
  struct statfs file_system {};
  // hugetlbfs frees whole huge pages only.
  if (::fstatfs(file.number(), &file_system) == 0 && file_system.f_type == HUGETLBFS_MAGIC) return false;
  const ByteCount length = range.end - range.begin;
  if (::fallocate(file.number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.begin.value()),
                  static_cast<off_t>(length.value())) == 0) {
    return true;
  }
  if (errno == EOPNOTSUPP || errno == ENOSYS) return false;
  throw Error::FromErrno(fmt::format("cannot clear {} at byte {}", file.name(), range.begin.value()), errno);
}

}  // namespace vmsave
