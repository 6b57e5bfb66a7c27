#include "writer/stream_hash.h"

#include <fmt/format.h>

#include "format/page_hash.h"
#include "writer/chunk_rehash.h"

namespace vmsave {
namespace {

HashedRange HashRange(const FileDescriptor& file, FileOffset begin, FileOffset end) {
  const ByteCount length = end - begin;
  if (length.value() > kMaxDeviceStateBytes) {
    throw Error(ErrorKind::kDamaged, fmt::format("cannot read {}", file.name()),
                "what is beside the pages is too large");
  }
  std::vector<std::byte> bytes(length.value());
  ReadAt(file, bytes, begin);
  return {begin, length, Xxh3(bytes)};
}

// Everything but the pages: up to the end of each bitmap, and behind the last page.
std::vector<HashedRange> HashMetadata(const FileDescriptor& file, const WrittenStream& stream) {
  std::vector<HashedRange> ranges;
  FileOffset begin = stream.start;
  for (const StreamBlock& block : stream.blocks) {
    ranges.push_back(HashRange(file, begin, block.mapped_ram->bitmap_offset + ByteCount{BitmapBytes(block.pages())}));
    begin = block.mapped_ram->pages_offset + block.length;
  }
  ranges.push_back(HashRange(file, begin, stream.end));
  return ranges;
}

}  // namespace

IntegrityTable HashWrittenStream(const FileDescriptor& buffered, const FileDescriptor& pages,
                                 const WrittenStream& stream, const WriteOptions& options, Progress& progress,
                                 const Interrupt& interrupt) {
  IntegrityTable table;
  table.ranges = HashMetadata(buffered, stream);
  for (const StreamBlock& block : stream.blocks) {
    table.blocks.push_back({block.name, block.length, std::nullopt, {}});
    table.blocks.back().chunk_hashes.resize(ChunkCount(block.length));
  }
  std::vector<WrittenBlock> blocks;
  for (std::size_t i = 0; i < table.blocks.size(); ++i) {
    const StreamBlock& block = stream.blocks[i];
    blocks.push_back({block.mapped_ram->pages_offset, &block.present, table.blocks[i].chunk_hashes});
  }
  const auto all = [](std::size_t, std::uint64_t) { return true; };
  HashWrittenChunks(pages, blocks, all, options, progress, interrupt);
  return table;
}

}  // namespace vmsave
