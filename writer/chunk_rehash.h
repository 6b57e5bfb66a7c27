// Checksums of pages that are in the file already.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "format/page_bitmap.h"
#include "io/file_descriptor.h"
#include "writer/write_options.h"

namespace vmsave {

// A block of an image whose pages lie at fixed offsets.
struct WrittenBlock {
  FileOffset pages_offset;  // a multiple of the page size
  const PageBitmap* present;
  std::span<std::uint64_t> chunk_hashes;  // one for every chunk of the block

  std::uint64_t pages() const { return present->pages(); }
};

// Which chunks are to be hashed. Called from several threads at a time.
using ChunkFilter = std::function<bool(std::size_t block, std::uint64_t chunk)>;

// Reads the present pages of the wanted chunks and fills in their hashes, 0 where no page is present, over
// options.channels channels; a phase of its own where there is anything to read. `pages` may be an O_DIRECT descriptor.
// Whoever wrote the pages has finished. Throws Error{kFailed}, Error{kInterrupted}, and Error{kDamaged} for a file that
// ends before its pages do.
void HashWrittenChunks(const FileDescriptor& pages, const std::vector<WrittenBlock>& blocks, const ChunkFilter& wanted,
                       const WriteOptions& options, Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
