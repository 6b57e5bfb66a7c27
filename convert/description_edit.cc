#include "convert/description_edit.h"

#include <fmt/format.h>

namespace vmsave {
namespace {

[[noreturn]] void Refuse(const std::string& source, std::string_view why) {
  throw Error(ErrorKind::kUsage, fmt::format("cannot use the description in {}", source), why);
}

}  // namespace

DescriptionEdit::DescriptionEdit(const std::string& path)
    : edit_(path),
      description_(DecodeDescription(std::span(edit_.head().before_stream).subspan(kSaveHeaderBytes), edit_.path())) {}

void DescriptionEdit::CheckRoom(std::string_view description, const std::string& source) const {
  const std::size_t room = DescriptionRoom(edit_.head().before_stream, edit_.head().header);
  if (description.size() <= room) return;
  Refuse(source, fmt::format("it has {} bytes, and {} has room for {}", description.size(), edit_.path(), room));
}

bool DescriptionEdit::Replace(std::string_view description, const std::string& source) {
  CheckRoom(description, source);
  if (description.find('\0') != std::string_view::npos) Refuse(source, "it has a NUL");
  if (description == description_) {
    const bool unfinished = edit_.unfinished();
    edit_.Finish();
    return unfinished;
  }
  edit_.Replace(WithDescription(edit_.head().before_stream, edit_.head().header, description));
  description_ = description;
  return true;
}

}  // namespace vmsave
