#include "format/error.h"

#include <fmt/format.h>

#include <system_error>

namespace vmsave {
namespace {

std::string Sentence(std::string_view what_failed, std::string_view why, std::string_view advice) {
  if (advice.empty()) return fmt::format("{}: {}", what_failed, why);
  return fmt::format("{}: {} ({})", what_failed, why, advice);
}

}  // namespace

Error::Error(ErrorKind kind, std::string_view what_failed, std::string_view why, std::string_view advice)
    : std::runtime_error(Sentence(what_failed, why, advice)), kind_(kind) {}

Error Error::FromErrno(std::string_view what_failed, int error_number, std::string_view advice) {
  return Error(ErrorKind::kFailed, what_failed, std::generic_category().message(error_number), advice);
}

}  // namespace vmsave
