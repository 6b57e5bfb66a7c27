#include "qemu/process_maps.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <limits>

#include "io/file_descriptor.h"

namespace vmsave {
namespace {

// The next word of `text`, without the blanks around it.
std::string_view TakeWord(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(word.size());
  return word;
}

bool ReadNumber(std::string_view text, int base, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

// "7fe45bfff000-7fe463fff000 rw-s 00000000 fe:00 10969757    /dev/shm/ram (deleted)"
bool ParseLine(std::string_view line, ProcessMapping& mapping) {
  const std::string_view range = TakeWord(line);
  const std::size_t dash = range.find('-');
  if (dash == std::string_view::npos || !ReadNumber(range.substr(0, dash), 16, mapping.start) ||
      !ReadNumber(range.substr(dash + 1), 16, mapping.end) || mapping.end <= mapping.start) {
    return false;
  }
  const std::string_view permissions = TakeWord(line);
  if (permissions.size() != 4) return false;
  mapping.writable = permissions[1] == 'w';
  mapping.shared = permissions[3] == 's';
  std::uint64_t offset = 0;
  if (!ReadNumber(TakeWord(line), 16, offset)) return false;
  mapping.offset = FileOffset{offset};
  mapping.device = TakeWord(line);
  if (!ReadNumber(TakeWord(line), 10, mapping.inode)) return false;
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  mapping.path = line;
  return true;
}

}  // namespace

std::vector<ProcessMapping> ParseProcessMaps(std::string_view text) {
  std::vector<ProcessMapping> mappings;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    ProcessMapping mapping;
    if (!ParseLine(text.substr(0, end), mapping)) {
      throw Error(ErrorKind::kFailed, "cannot read the list of a process's mappings",
                  fmt::format("line {} is not understood", mappings.size() + 1));
    }
    mappings.push_back(std::move(mapping));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return mappings;
}

std::vector<ProcessMapping> ReadProcessMaps(std::string_view process) {
  const FileDescriptor file = OpenFile(fmt::format("/proc/{}/maps", process), O_RDONLY);
  std::string text;
  std::array<char, 65536> chunk;
  while (true) {
    const ssize_t count = ::read(file.number(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error::FromErrno(fmt::format("cannot read {}", file.name()), errno);
    if (count == 0) break;
    text.append(chunk.data(), static_cast<std::size_t>(count));
  }
  return ParseProcessMaps(text);
}

std::optional<ProcessMapping> FindFileMapping(const std::vector<ProcessMapping>& mappings, std::uint64_t start,
                                              ByteCount length) {
  const std::uint64_t end = CheckedAdd(start, length.value());
  std::optional<ProcessMapping> found;
  for (const ProcessMapping& piece : mappings) {  // in the order of their addresses
    if (piece.end <= start) continue;
    if (!found) {
      if (piece.start > start || piece.inode == 0) return std::nullopt;
      found = piece;
      found->start = start;
      found->offset += ByteCount{start - piece.start};
    } else {
      const bool continues = piece.start == found->end && piece.SameFile(*found) &&
                             piece.offset == found->offset + ByteCount{found->end - start};
      if (!continues) return std::nullopt;
      found->writable = found->writable && piece.writable;
      found->shared = found->shared && piece.shared;
    }
    found->end = std::min(piece.end, end);
    if (found->end == end) return found;
  }
  return std::nullopt;
}

std::optional<ByteCount> UsedMemory(pid_t process) {
  std::ifstream status(fmt::format("/proc/{}/status", process));
  std::uint64_t kib = 0;
  bool known = false;
  for (std::string field; status >> field; status.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    std::uint64_t value = 0;
    if ((field != "VmRSS:" && field != "VmSwap:") || !(status >> value)) continue;
    kib = CheckedAdd(kib, value);
    known = true;
  }
  if (!known) return std::nullopt;
  return ByteCount{CheckedMultiply(kib, 1024)};
}

}  // namespace vmsave
