#include "convert/extract.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "convert/page_transfer.h"
#include "format/elf_core.h"
#include "format/pc_memory.h"
#include "writer/raw_store.h"

namespace vmsave {
namespace {

using BlockNumbers = std::vector<std::size_t>;  // in an image's block list

ByteCount LengthOf(const Image& image, const BlockNumbers& wanted) {
  ByteCount length;
  for (const std::size_t block : wanted) length += image.contents().blocks[block].length;
  return length;
}

// Where the wanted blocks go, one behind the other from `start` on.
RawLayout Consecutive(const Image& image, const BlockNumbers& wanted, FileOffset start) {
  RawLayout layout;
  layout.block_starts.resize(image.contents().blocks.size());
  FileOffset next = start;
  for (const std::size_t block : wanted) {
    layout.block_starts[block] = next;
    next += image.contents().blocks[block].length;
  }
  layout.file_length = next - FileOffset{0};
  return layout;
}

WriteTotals Extract(const Image& image, const BlockNumbers& wanted, NewFile& file, const RawLayout& layout,
                    const ReadOptions& options, PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  const auto is_wanted = [&](std::size_t block) { return std::ranges::find(wanted, block) != wanted.end(); };
  const auto make_store = [&](const StreamContents& contents) {
    return MakeRawStore(file, contents.block_shapes(), layout, {options.channels, options.engine});
  };
  WriteTotals totals = TransferPages(image, make_store, options, checks, progress, interrupt, is_wanted);
  totals.ram = LengthOf(image, wanted);
  totals.zero = totals.ram - totals.present;
  return totals;
}

[[noreturn]] void RefuseUnknownMemory(const Image& image) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot make an ELF core of {}", image.path()),
              "it cannot be told which of its RAM blocks are the main memory", "take single blocks with --block");
}

// Where checksums are, the blocks of several backends have their place in the memory with them.
BlockNumbers BlocksWithAddresses(const Image& image) {
  BlockNumbers numbers;
  if (!image.integrity()) return numbers;
  const std::vector<HashedBlock>& blocks = image.integrity()->blocks;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].address) numbers.push_back(i);
  }
  std::ranges::sort(numbers, {}, [&](std::size_t i) { return blocks[i].address->value(); });
  std::uint64_t next = 0;
  for (const std::size_t i : numbers) {
    if (blocks[i].address->value() != next) return {};
    next += blocks[i].length.value();
  }
  return numbers;
}

// More than firmware and a usual graphics card have.
BlockNumbers LargeBlocks(const Image& image) {
  constexpr std::uint64_t kLargestSmall = 16 << 20;
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  BlockNumbers large;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].length.value() > kLargestSmall) large.push_back(i);
  }
  return large;
}

// pc.ram; or else the backends, where their order is known; or else the only block that can be a PC's memory.
BlockNumbers MainMemory(const Image& image) {
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  const auto pc_ram = std::ranges::find(blocks, "pc.ram", &StreamBlock::name);
  if (pc_ram != blocks.end()) return {static_cast<std::size_t>(pc_ram - blocks.begin())};
  if (BlockNumbers numbers = BlocksWithAddresses(image); !numbers.empty()) return numbers;
  BlockNumbers large = LargeBlocks(image);
  if (large.size() != 1) RefuseUnknownMemory(image);
  return large;
}

std::vector<CoreRange> CoreRanges(const std::vector<RamRange>& memory, FileOffset start) {
  std::vector<CoreRange> ranges;
  for (const RamRange& range : memory) ranges.push_back({range.address, start + range.offset, range.length});
  return ranges;
}

}  // namespace

WriteTotals ExtractBlock(const Image& image, const std::string& block, NewFile& file, const ReadOptions& options,
                         PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  const auto found = std::ranges::find(blocks, block, &StreamBlock::name);
  if (found == blocks.end()) {
    std::string names;
    for (const StreamBlock& known : blocks) names += (names.empty() ? "" : ", ") + known.name;
    throw Error(ErrorKind::kUsage, fmt::format("cannot extract {}", block),
                fmt::format("{} has no such RAM block", image.path()), fmt::format("it has {}", names));
  }
  const BlockNumbers wanted{static_cast<std::size_t>(found - blocks.begin())};
  return Extract(image, wanted, file, Consecutive(image, wanted, FileOffset{0}), options, checks, progress, interrupt);
}

ElfCore ExtractElfCore(const Image& image, NewFile& file, const ReadOptions& options, PageChecks checks,
                       Progress& progress, const Interrupt& interrupt) {
  const BlockNumbers wanted = MainMemory(image);
  const std::string& machine = image.contents().frame.machine;
  const std::vector<RamRange> memory = PcMemory(machine, LengthOf(image, wanted));
  const std::size_t head_bytes = EncodeElfCore(CoreRanges(memory, FileOffset{0}), machine).size();
  const FileOffset start{RoundUp(head_bytes, kPageBytes)};
  RawLayout layout = Consecutive(image, wanted, start);
  layout.head = EncodeElfCore(CoreRanges(memory, start), machine);
  ElfCore core{Extract(image, wanted, file, layout, options, checks, progress, interrupt), {}};
  for (const std::size_t block : LargeBlocks(image)) {
    if (std::ranges::find(wanted, block) == wanted.end()) core.left_out.push_back(image.contents().blocks[block].name);
  }
  return core;
}

}  // namespace vmsave
