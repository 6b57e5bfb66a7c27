#include "cli/configuration.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <libconfig.h++>

#include "io/channels.h"
#include "io/file_descriptor.h"

namespace vmsave {
namespace {

[[noreturn]] void Refuse(const std::string& path, unsigned line, std::string_view why) {
  throw Error(ErrorKind::kUsage, fmt::format("{}, line {}", path, line), why, "see vmsave.conf's own comments");
}

[[noreturn]] void RefuseFile(const std::string& path, std::string_view why) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot read the configuration {}", path), why);
}

// Of a file that is no text, and of one without end, no more than is needed to see that.
std::string ReadText(const std::string& path) {
  constexpr std::size_t kMostBytes = std::size_t{64} << 10;
  const FileDescriptor file = OpenFile(path, O_RDONLY);
  std::string text;
  std::array<char, 4096> piece{};
  while (text.size() <= kMostBytes) {
    const ssize_t count = ::read(file.number(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error::FromErrno(fmt::format("cannot read the configuration {}", path), errno);
    if (count == 0) break;
    text.append(piece.data(), static_cast<std::size_t>(count));
  }
  if (text.size() > kMostBytes) RefuseFile(path, fmt::format("it is longer than {} KiB", kMostBytes >> 10));
  if (text.find('\0') != std::string::npos) RefuseFile(path, "it has a NUL");
  return text;
}

// libconfig's directive. A file that includes itself, more than once, would be read for ever.
void RefuseIncludes(const std::string& path, std::string_view text) {
  constexpr std::string_view kInclude = "@include";
  for (std::size_t at = text.find(kInclude); at != std::string_view::npos; at = text.find(kInclude, at + 1)) {
    const std::string_view before = text.substr(0, at);
    const std::size_t line_start = before.rfind('\n') + 1;  // 0 in the first line
    if (before.find_first_not_of(" \t", line_start) != std::string_view::npos) continue;
    Refuse(path, static_cast<unsigned>(1 + std::ranges::count(before, '\n')), "@include is not known");
  }
}

int IntegerWithin(const std::string& path, const libconfig::Setting& setting, int low, int high) {
  const bool is_integer = setting.getType() == libconfig::Setting::TypeInt;
  const int value = is_integer ? static_cast<int>(setting) : 0;
  if (!is_integer || value < low || value > high) {
    Refuse(path, setting.getSourceLine(),
           fmt::format("{} must be a number from {} to {}", setting.getName(), low, high));
  }
  return value;
}

bool Boolean(const std::string& path, const libconfig::Setting& setting) {
  if (setting.getType() != libconfig::Setting::TypeBoolean) {
    Refuse(path, setting.getSourceLine(), fmt::format("{} must be true or false", setting.getName()));
  }
  return setting;
}

std::string Engine(const std::string& path, const libconfig::Setting& setting) {
  std::string value;
  if (setting.getType() == libconfig::Setting::TypeString) value = setting.c_str();
  if (value != "auto" && value != "uring" && value != "sync") {
    Refuse(path, setting.getSourceLine(), fmt::format(R"({} must be "auto", "uring" or "sync")", setting.getName()));
  }
  return value;
}

void Take(const std::string& path, const libconfig::Setting& setting, Configuration& configuration) {
  const std::string key = setting.getName();
  if (key == "save_image_version") {
    configuration.save_image_version = IntegerWithin(path, setting, 2, 3);
  } else if (key == "parallel") {
    configuration.parallel = static_cast<unsigned>(IntegerWithin(path, setting, 1, kMaxChannels));
  } else if (key == "bypass_cache") {
    configuration.bypass_cache = Boolean(path, setting);
  } else if (key == "io_engine") {
    configuration.io_engine = Engine(path, setting);
  } else {
    Refuse(path, setting.getSourceLine(), fmt::format("there is no key {}", key));
  }
}

}  // namespace

Configuration ReadConfiguration(const std::optional<std::string>& path) {
  const std::string file = path.value_or(kDefaultConfiguration);
  if (!path && ::access(file.c_str(), F_OK) != 0) return {};
  if (::access(file.c_str(), R_OK) != 0)
    throw Error::FromErrno(fmt::format("cannot read the configuration {}", file), errno);
  const std::string text = ReadText(file);
  RefuseIncludes(file, text);
  libconfig::Config parsed;
  try {
    parsed.readString(text);
  } catch (const libconfig::ParseException& error) {
    Refuse(file, static_cast<unsigned>(error.getLine()), error.getError());
  }
  Configuration configuration;
  const libconfig::Setting& root = parsed.getRoot();
  for (int i = 0; i < root.getLength(); ++i) Take(file, root[i], configuration);
  return configuration;
}

}  // namespace vmsave
