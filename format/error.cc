#include "format/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

namespace vmsave {
namespace {

// Names come from images and from peers: control characters of theirs must not reach a terminal.
std::string Printable(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char byte) { return byte < 0x20 || byte == 0x7f; }, '?');
  return text;
}

constexpr std::string_view kBeforeWhy = ": ";

std::string Sentence(std::string_view what_failed, std::string_view why, std::string_view advice) {
  if (advice.empty()) return fmt::format("{}{}{}", what_failed, kBeforeWhy, why);
  return fmt::format("{}{}{} ({})", what_failed, kBeforeWhy, why, advice);
}

}  // namespace

Error::Error(ErrorKind kind, std::string_view what_failed, std::string_view why, std::string_view advice)
    : std::runtime_error(Printable(Sentence(what_failed, why, advice))),
      kind_(kind),
      why_offset_(what_failed.size() + kBeforeWhy.size()),
      why_length_(why.size()) {}

Error Error::FromErrno(std::string_view what_failed, int error_number, std::string_view advice) {
  return Error(ErrorKind::kFailed, what_failed, std::generic_category().message(error_number), advice);
}

}  // namespace vmsave
