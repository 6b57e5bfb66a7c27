#include "reader/working_set_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "reader/image_identity.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMaxFileBytes = kMaxChunkRuns * 16 + 64;

void CheckFits(const Image& image, const WorkingSet& set, const std::string& path) {
  const auto refuse = [&](std::string_view why) { throw Error(ErrorKind::kDamaged, path, why); };
  if (set.image != ImageIdentity(image)) refuse("it is of another save");
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  std::uint64_t all = 0;
  for (const StreamBlock& block : blocks) all += ChunkCount(block.length);
  for (const ChunkRun& run : set.runs) {
    if (run.block >= blocks.size()) refuse("it names a RAM block that the image has not");
    const std::uint64_t chunks = ChunkCount(blocks[run.block].length);
    if (run.count == 0 || run.first >= chunks || run.count > chunks - run.first) {
      refuse("it names pages that the image has not");
    }
    if (run.count > all) refuse("it names more pages than the image has");
    all -= run.count;
  }
}

void Append(std::vector<ChunkRun>& runs, std::uint32_t block, std::uint64_t chunk) {
  if (!runs.empty() && runs.back().block == block && runs.back().first + runs.back().count == chunk) {
    ++runs.back().count;
  } else if (runs.size() < kMaxChunkRuns) {
    runs.push_back({block, 1, chunk});
  }
}

// One that is damaged, or of another save, is one all the same.
bool HoldsWorkingSet(const std::string& path) {
  const FileDescriptor file = OpenFile(path, O_RDONLY | O_NONBLOCK);
  std::vector<std::byte> head(std::min(FileLength(file), kWorkingSetHeadLength).value());
  ReadAt(file, head, FileOffset{0});
  return IsWorkingSetHead(head);
}

}  // namespace

std::string WorkingSetPath(const Image& image) {
  return image.path() + ".ws";
}

std::optional<WorkingSet> ReadWorkingSet(const Image& image) {
  const std::string path = WorkingSetPath(image);
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return std::nullopt;
  const FileDescriptor file = OpenFile(path, O_RDONLY | O_NONBLOCK);
  const ByteCount length = FileLength(file);
  if (length.value() > kMaxFileBytes) throw Error(ErrorKind::kDamaged, path, "it is too long for a working set");
  std::vector<std::byte> bytes(length.value());
  ReadAt(file, bytes, FileOffset{0});
  WorkingSet set = DecodeWorkingSet(bytes, path);
  CheckFits(image, set, path);
  return set;
}

ByteCount LengthOf(const WorkingSet& set) {
  ByteCount length;
  for (const ChunkRun& run : set.runs) length += ByteCount{CheckedMultiply(run.count, kChunkBytes)};
  return length;
}

std::deque<WorkChunk> ChunksOf(const Image& image, const WorkingSet& set) {
  std::deque<WorkChunk> chunks;
  for (const ChunkRun& run : set.runs) {
    const std::uint64_t pages = image.contents().blocks[run.block].pages();
    const std::uint64_t end = std::min((run.first + run.count) * kPagesPerChunk, pages);
    for (std::uint64_t first = run.first * kPagesPerChunk; first < end; first += kWorkPages) {
      chunks.push_back({run.block, first, std::min(first + kWorkPages, end)});
    }
  }
  return chunks;
}

WorkingSet Extended(const Image& image, const std::optional<WorkingSet>& known,
                    const std::vector<WorkChunk>& demanded) {
  WorkingSet set = known.value_or(WorkingSet{ImageIdentity(image), {}});
  std::vector<PageBitmap> seen;  // a bit for each chunk
  for (const StreamBlock& block : image.contents().blocks) seen.emplace_back(ChunkCount(block.length));
  for (const ChunkRun& run : set.runs) {
    for (std::uint64_t i = 0; i < run.count; ++i) seen[run.block].Set(run.first + i);
  }
  for (const WorkChunk& chunk : demanded) {
    for (std::uint64_t first = chunk.first_page; first < chunk.end_page; first += kPagesPerChunk) {
      const std::uint64_t number = first / kPagesPerChunk;
      if (seen[chunk.block].Test(number)) continue;
      seen[chunk.block].Set(number);
      Append(set.runs, static_cast<std::uint32_t>(chunk.block), number);
    }
  }
  return set;
}

void WriteWorkingSet(const Image& image, const WorkingSet& set) {
  const std::string path = WorkingSetPath(image);
  std::error_code error;
  if (std::filesystem::exists(path, error) && !HoldsWorkingSet(path)) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot write the working set to {}", path), "that is something else",
                "move it, or use --no-record");
  }
  NewFile file(path, Replace::kYes, CacheUse::kPageCache);
  WriteAt(file.buffered(), EncodeWorkingSet(set), FileOffset{0});
  file.Publish();
}

}  // namespace vmsave
