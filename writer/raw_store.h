// A guest's RAM without an image around it: each page at a place of a file that follows from its address alone.
#pragma once

#include <memory>
#include <vector>

#include "writer/page_store.h"

namespace vmsave {

struct RawLayout {
  std::vector<FileOffset> block_starts;  // of each RAM block's first page; multiples of the page size
  ByteCount file_length;
  std::vector<std::byte> head;  // at the start of the file, in front of all pages
};

// Pages that never come, or are zero in the end, are holes. The file is as good as its layout: Complete writes the
// head, and neither looks at frame and device state nor syncs, which NewFile::Publish does.
std::unique_ptr<PageStore> MakeRawStore(NewFile& file, const std::vector<BlockShape>& blocks, RawLayout layout,
                                        const WriteOptions& options);

}  // namespace vmsave
