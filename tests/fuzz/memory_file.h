// An input as a file, in memory.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <span>
#include <string>

#include "io/memory_mapping.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {

class MemoryFile {
 public:
  MemoryFile() : file_(::memfd_create("fuzz", MFD_CLOEXEC), "fuzz") { Require(file_.valid()); }
  explicit MemoryFile(std::span<const std::byte> bytes) : MemoryFile() { Append(bytes); }

  void Append(std::span<const std::byte> bytes) {
    WriteAt(file_, bytes, FileOffset{0} + length_);
    length_ += ByteCount{bytes.size()};
  }

  void AppendHole(ByteCount length) {
    length_ += length;
    Require(::ftruncate(file_.number(), static_cast<off_t>(length_.value())) == 0);
  }

  std::string path() const { return "/proc/self/fd/" + std::to_string(file_.number()); }

  // All of it, for reading and writing. REQUIRES: not empty.
  MemoryMapping Map() const {
    return MemoryMapping::OfFile(file_, FileOffset{0}, length_, MemoryMapping::Access::kReadWrite);
  }

  ByteCount length() const { return length_; }
  const FileDescriptor& file() const { return file_; }

 private:
  FileDescriptor file_;
  ByteCount length_;
};

}  // namespace vmsave
