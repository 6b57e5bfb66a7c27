#include "io/resident_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "format/units.h"

namespace vmsave {

void ResidentPages::Look(std::span<const std::byte> memory) {
  resident_.resize(memory.size() / kPageBytes);
  if (::mincore(const_cast<std::byte*>(memory.data()), memory.size(), resident_.data()) == 0) return;
  resident_.clear();
}

std::uint64_t ResidentPages::CountFrom(std::uint64_t page) const {
  if (page >= resident_.size()) return 0;
  const auto first = resident_.begin() + static_cast<std::ptrdiff_t>(page);
  const auto end = std::find_if(first, resident_.end(), [](unsigned char bits) { return (bits & 1) == 0; });
  return static_cast<std::uint64_t>(end - first);
}

bool CanTellResidentPages(const FileDescriptor& file) {
  struct stat status {};
  if (::fstat(file.number(), &status) == 0 && status.st_uid == ::geteuid()) return true;
  return ::faccessat(file.number(), "", W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
}

}  // namespace vmsave
