// The configuration file of vmsave and vmrestore: `key = value`, strings in double quotes, # comments.
#pragma once

#include <optional>
#include <string>

#include "io/io_engine.h"

namespace vmsave {

inline constexpr const char* kDefaultConfiguration = "/etc/vmsave/vmsave.conf";

struct Configuration {
  std::optional<int> save_image_version;  // 2 or 3
  std::optional<unsigned> parallel;
  std::optional<bool> bypass_cache;
  std::optional<std::string> io_engine;  // "auto", "uring" or "sync"
};

// Reads `path`, or the default one if it is there. Throws Error{kUsage} naming file and line for an unknown key or a
// bad value, Error{kFailed} where a named file cannot be read.
Configuration ReadConfiguration(const std::optional<std::string>& path);

}  // namespace vmsave
