#include "io/memory_mapping.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>

namespace vmsave {

MemoryMapping& MemoryMapping::operator=(MemoryMapping&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

MemoryMapping::~MemoryMapping() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

MemoryMapping MemoryMapping::OfFile(const FileDescriptor& file, FileOffset offset, ByteCount length, Access access) {
  const int protection = access == Access::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  void* address =
      ::mmap(nullptr, length.value(), protection, MAP_SHARED, file.number(), static_cast<off_t>(offset.value()));
  if (address == MAP_FAILED) throw Error::FromErrno(fmt::format("cannot map {}", file.name()), errno);
  return {static_cast<std::byte*>(address), length.value()};
}

MemoryMapping MemoryMapping::Anonymous(ByteCount length) {
  void* address =
      ::mmap(nullptr, length.value(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED)
    throw Error::FromErrno(fmt::format("cannot get {} bytes of memory", length.value()), errno);
  return {static_cast<std::byte*>(address), length.value()};
}

}  // namespace vmsave
