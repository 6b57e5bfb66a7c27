#include "writer/legacy_stream.h"

#include <algorithm>

#include "format/bytes.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kGroupPages = 512;  // 32 bytes of memory for each 2 MiB of RAM
constexpr std::byte kZeroFill{0};

std::vector<BlockShape> ShapesOf(const std::vector<RamBlock>& blocks) {
  std::vector<BlockShape> shapes;
  shapes.reserve(blocks.size());
  for (const RamBlock& block : blocks) shapes.push_back({block.name, block.length()});
  return shapes;
}

}  // namespace

// The part of the file that `out` asks for; of all that is offered, in order, it takes what falls into it.
class LegacyStream::Clip {
 public:
  Clip(FileOffset offset, std::span<std::byte> out) : begin_(offset.value()), out_(out) {}

  void Offer(std::uint64_t file_offset, std::span<const std::byte> bytes) {
    const std::uint64_t from = std::max(file_offset, begin_);
    const std::uint64_t to = std::min(file_offset + bytes.size(), end());
    if (from >= to) return;
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(from - file_offset), to - from,
                out_.begin() + static_cast<std::ptrdiff_t>(from - begin_));
  }

  std::uint64_t begin() const { return begin_; }
  std::uint64_t end() const { return begin_ + out_.size(); }

 private:
  std::uint64_t begin_;
  std::span<std::byte> out_;
};

LegacyStream::LegacyStream(std::vector<std::byte> before_stream, const GuestImage& guest,
                           const std::vector<PageBitmap>& present)
    : guest_(guest), present_(present) {
  ByteWriter prefix;
  prefix.Append(before_stream);
  AppendLegacyHead(prefix, guest.frame, ShapesOf(guest.blocks));
  prefix_ = prefix.Take();
  suffix_offset_ = prefix_.size();
  for (std::size_t block = 0; block < guest.blocks.size(); ++block) AddGroups(block);
  ByteWriter suffix;
  AppendLegacyTail(suffix, guest.frame, guest.device_state);
  suffix_ = suffix.Take();
  length_ = ByteCount{suffix_offset_} + ByteCount{suffix_.size()};
}

void LegacyStream::AddGroups(std::size_t block) {
  const std::uint64_t pages = guest_.blocks[block].pages();
  const std::size_t name_length = guest_.blocks[block].name.size();
  for (std::uint64_t first = 0; first < pages; first += kGroupPages) {
    const std::uint64_t end = std::min(first + kGroupPages, pages);
    groups_.push_back({suffix_offset_, block, first, end});
    const std::uint64_t present = present_[block].CountSet(first, end);
    suffix_offset_ += present * PageRecordLength(name_length, true, true);
    suffix_offset_ += (end - first - present) * PageRecordLength(name_length, false, true);
    if (first == 0) suffix_offset_ += 1 + name_length;
  }
}

void LegacyStream::Make(FileOffset offset, std::span<std::byte> out) const {
  Clip clip(offset, out);
  clip.Offer(0, prefix_);
  auto group = std::ranges::upper_bound(groups_, clip.begin(), {}, &Group::file_offset);
  if (group != groups_.begin()) --group;
  for (; group != groups_.end() && group->file_offset < clip.end(); ++group) MakeGroup(*group, clip);
  clip.Offer(suffix_offset_, suffix_);
}

void LegacyStream::MakeGroup(const Group& group, Clip& clip) const {
  const RamBlock& block = guest_.blocks[group.block];
  std::uint64_t at = group.file_offset;
  for (std::uint64_t page = group.first_page; page < group.end_page && at < clip.end(); ++page) {
    const bool present = present_[group.block].Test(page);
    const bool continues = page != 0;
    const std::uint64_t length = PageRecordLength(block.name.size(), present, continues);
    if (at + length > clip.begin()) {
      const RecordHead head = MakeRecordHead(block.name, PageIndex{page}, present, continues);
      clip.Offer(at, head.bytes());
      clip.Offer(at + head.size,
                 present ? block.memory.subspan(page * kPageBytes, kPageBytes) : std::span(&kZeroFill, 1));
    }
    at += length;
  }
}

}  // namespace vmsave
