#include "format/error.h"

#include <fmt/format.h>

#include <system_error>

#include "format/printable.h"

namespace vmsave {
namespace {

constexpr std::string_view kBeforeWhy = ": ";

std::string Sentence(std::string_view what_failed, std::string_view why, std::string_view advice) {
  if (advice.empty()) return fmt::format("{}{}{}", what_failed, kBeforeWhy, why);
  return fmt::format("{}{}{} ({})", what_failed, kBeforeWhy, why, advice);
}

}  // namespace

// Names come from images and from peers: control characters of theirs must not reach a terminal.
Error::Error(ErrorKind kind, std::string_view what_failed, std::string_view why, std::string_view advice)
    : std::runtime_error(Sentence(Printable(what_failed), Printable(why), Printable(advice))),
      kind_(kind),
      why_offset_(Printable(what_failed).size() + kBeforeWhy.size()),
      why_length_(Printable(why).size()) {}

Error Error::FromErrno(std::string_view what_failed, int error_number, std::string_view advice) {
  return Error(ErrorKind::kFailed, what_failed, std::generic_category().message(error_number), advice);
}

}  // namespace vmsave
