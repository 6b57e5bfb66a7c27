// Where the pages of RAM blocks go in a file that has a place for each.
#pragma once

#include <utility>
#include <vector>

#include "io/file_descriptor.h"

namespace vmsave {

// Immutable. Keeps a reference to the descriptor.
class PagePlaces {
 public:
  // `starts`: of each block, where its first page goes; the others follow it. Multiples of the page size.
  PagePlaces(const FileDescriptor& file, std::vector<FileOffset> starts) : file_(file), starts_(std::move(starts)) {}

  // Takes pages; may be an O_DIRECT descriptor.
  const FileDescriptor& file() const { return file_; }
  FileOffset Of(std::size_t block, PageIndex page) const { return starts_[block] + PagesToBytes(page); }

 private:
  const FileDescriptor& file_;
  std::vector<FileOffset> starts_;
};

}  // namespace vmsave
