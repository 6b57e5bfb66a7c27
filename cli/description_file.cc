#include "cli/description_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "qemu/guest_facts.h"

namespace vmsave {

std::string ReadDescriptionFile(const std::string& path) {
  const auto cannot_read = [&path] {
    return Error::FromErrno(fmt::format("cannot read the description {}", path), errno);
  };
  std::ifstream file(path, std::ios::binary);
  if (!file) throw cannot_read();
  std::ostringstream text;
  errno = 0;
  text << file.rdbuf();
  if (text.fail() && errno != 0) throw cannot_read();
  CheckDescription(text.str(), path);
  return text.str();
}

}  // namespace vmsave
