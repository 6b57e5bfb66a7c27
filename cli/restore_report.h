// What vmrestore says of a restore, in words and for scripts.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "qemu/lazy_restore.h"
#include "qemu/restore.h"

namespace vmsave {

std::string AsText(const RestoreSummary& summary, const std::string& guest);
std::string AsText(const LazySummary& summary, const std::string& guest);

nlohmann::json AsJson(const RestoreSummary& summary, const std::string& image);
nlohmann::json AsJson(const LazySummary& summary, const std::string& image);

}  // namespace vmsave
