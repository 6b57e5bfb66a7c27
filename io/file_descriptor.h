// Owns an open file descriptor, and the plain system calls on one, each of which either does all that was asked or
// throws.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "format/units.h"

namespace vmsave {

// Movable, closed by the destructor. The name is what messages call the file. Not synchronised; the calls below may be
// used on one descriptor from several threads.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  FileDescriptor(int number, std::string name) : number_(number), name_(std::move(name)) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : number_(std::exchange(other.number_, -1)), name_(std::move(other.name_)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  int number() const { return number_; }
  bool valid() const { return number_ >= 0; }
  const std::string& name() const { return name_; }

  // The same descriptor, called `name` in messages.
  FileDescriptor Renamed(std::string name) && { return {std::exchange(number_, -1), std::move(name)}; }

  // Closes now and throws Error{kFailed} where close(2) reports one (a late write error of a network file system).
  void Close();

 private:
  int number_ = -1;
  std::string name_;
};

// open(2) with O_CLOEXEC added. Throws Error{kFailed} "cannot open PATH".
FileDescriptor OpenFile(const std::string& path, int flags, mode_t mode = 0);

// Writes or reads all of the bytes at the offset; interrupted and short transfers are continued. Throws Error{kFailed};
// a read past the end of the file is Error{kDamaged} "ends early".
void WriteAt(const FileDescriptor& file, std::span<const std::byte> bytes, FileOffset offset);
void ReadAt(const FileDescriptor& file, std::span<std::byte> bytes, FileOffset offset);

// As ReadAt, but stops at the end of the file: returns how many bytes there were.
std::size_t ReadUpTo(const FileDescriptor& file, std::span<std::byte> bytes, FileOffset offset);

// fdatasync(2), with its error.
void SyncData(const FileDescriptor& file);

ByteCount FileLength(const FileDescriptor& file);

// ftruncate(2), with its error.
void SetFileLength(const FileDescriptor& file, ByteCount length);

}  // namespace vmsave
