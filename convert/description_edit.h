// Puts another description into a save image, in place.
#pragma once

#include <string>
#include <string_view>

#include "convert/image_edit.h"

namespace vmsave {

// As ImageEdit, which says what is locked, when it is durable, and what a crash leaves behind.
class DescriptionEdit {
 public:
  // Throws as ImageEdit's does, and Error{kDamaged} where the description has no end.
  explicit DescriptionEdit(const std::string& path);

  const std::string& description() const { return description_; }

  // Throws Error{kUsage} naming `source` where the image has no room for a text of that length: the description takes
  // no more than it and its padding take now. The cookie keeps its own.
  void CheckRoom(std::string_view description, const std::string& source) const;

  // Returns false, having written nothing, where the description is that already and no edit is left unfinished. Throws
  // as CheckRoom and as ImageEdit::Replace do, and Error{kUsage} for a text with a NUL.
  bool Replace(std::string_view description, const std::string& source);

 private:
  ImageEdit edit_;
  std::string description_;
};

}  // namespace vmsave
