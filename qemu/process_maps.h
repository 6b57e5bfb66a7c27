// What files a process has mapped, and where (proc_pid_maps(5)).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/units.h"

namespace vmsave {

// A piece of a process's address space.
struct ProcessMapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;  // first address behind it
  bool writable = false;
  bool shared = false;
  FileOffset offset;  // of `start` in the file
  // Which file. The kernel's own notation: compare it only with another process's, never with stat(2), which tells
  // another device on btrfs and overlayfs. Inode 0: no file.
  std::string device;
  std::uint64_t inode = 0;
  std::string path;

  bool SameFile(const ProcessMapping& other) const {
    return inode != 0 && inode == other.inode && device == other.device;
  }
};

// A whole text of /proc/PID/maps. Throws Error{kFailed} for a line that does not look like one.
std::vector<ProcessMapping> ParseProcessMaps(std::string_view text);

// `process` is a pid or "self". Throws Error{kFailed}: no such process, not permitted.
std::vector<ProcessMapping> ReadProcessMaps(std::string_view process);

// One mapping of a file, whole or in pieces that follow each other in memory and in the file, that covers the addresses
// [start, start + length). Cut to them. Nothing where there is none.
std::optional<ProcessMapping> FindFileMapping(const std::vector<ProcessMapping>& mappings, std::uint64_t start,
                                              ByteCount length);

// Bytes of memory that a process really uses, swapped ones too (VmRSS and VmSwap of proc_pid_status(5)). Nothing where
// that cannot be seen.
std::optional<ByteCount> UsedMemory(pid_t process);

}  // namespace vmsave
