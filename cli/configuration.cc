#include "cli/configuration.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <libconfig.h++>

#include "io/channels.h"

namespace vmsave {
namespace {

[[noreturn]] void Refuse(const std::string& path, unsigned line, std::string_view why) {
  throw Error(ErrorKind::kUsage, fmt::format("{}, line {}", path, line), why, "see vmsave.conf's own comments");
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
  libconfig::Config parsed;
  try {
    parsed.readFile(file.c_str());
  } catch (const libconfig::ParseException& error) {
    Refuse(file, static_cast<unsigned>(error.getLine()), error.getError());
  } catch (const libconfig::FileIOException&) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot read the configuration {}", file), "it is not a readable file");
  }
  Configuration configuration;
  const libconfig::Setting& root = parsed.getRoot();
  for (int i = 0; i < root.getLength(); ++i) Take(file, root[i], configuration);
  return configuration;
}

}  // namespace vmsave
