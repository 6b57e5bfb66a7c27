#include "cli/description_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "format/save_header.h"
#include "qemu/guest_facts.h"

namespace vmsave {

std::string ReadText(const FileDescriptor& file, const Interrupt& interrupt) {
  std::string text;
  std::array<char, 65536> buffer{};
  while (text.size() <= kMaxDescriptionBytes) {
    interrupt.WaitReadable(file.number(), -1);
    const ssize_t count = ::read(file.number(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error::FromErrno(fmt::format("cannot read {}", file.name()), errno);
    if (count == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return text;
}

std::string ReadDescriptionFile(const std::string& path) {
  std::string text = ReadText(OpenFile(path, O_RDONLY), Interrupt());
  CheckDescription(text, path);
  return text;
}

}  // namespace vmsave
