// A mapping of memory, unmapped by the destructor.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "format/units.h"
#include "io/file_descriptor.h"

namespace vmsave {

class MemoryMapping {
 public:
  enum class Access { kRead, kReadWrite };

  MemoryMapping() = default;
  MemoryMapping(MemoryMapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MemoryMapping& operator=(MemoryMapping&& other) noexcept;
  ~MemoryMapping();

  // MAP_SHARED of `length` bytes of a file. Throws Error{kFailed}.
  static MemoryMapping OfFile(const FileDescriptor& file, FileOffset offset, ByteCount length, Access access);

  // Fresh private memory, all zero; pages cost nothing until they are written.
  static MemoryMapping Anonymous(ByteCount length);

  std::span<std::byte> bytes() { return {address_, size_}; }
  std::span<const std::byte> bytes() const { return {address_, size_}; }

 private:
  MemoryMapping(std::byte* address, std::size_t size) : address_(address), size_(size) {}
  std::byte* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace vmsave
