#include "writer/legacy_stream.h"

#include <algorithm>

#include "format/bytes.h"

namespace vmsave {
namespace {

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
    : guest_(guest),
      present_(present),
      plan_(PlanWork(guest.blocks)),
      lengths_(plan_.chunk_count()),
      starts_(plan_.chunk_count() + 1) {
  ByteWriter prefix;
  prefix.Append(before_stream);
  AppendLegacyHead(prefix, guest.frame, ShapesOf(guest.blocks));
  prefix_ = prefix.Take();
  ByteWriter suffix;
  AppendLegacyTail(suffix, guest.frame, guest.device_state);
  suffix_ = suffix.Take();
  starts_.front() = prefix_.size();
}

ByteCount LegacyStream::longest() const {
  std::uint64_t length = prefix_.size() + suffix_.size();
  for (std::uint64_t number = 0; number < plan_.chunk_count(); ++number) {
    const WorkChunk chunk = plan_.chunk(number);
    length += LengthOf(chunk, chunk.pages());
  }
  return ByteCount{length};
}

std::uint64_t LegacyStream::LengthOf(const WorkChunk& chunk, std::uint64_t present) const {
  const std::size_t name_length = guest_.blocks[chunk.block].name.size();
  return present * PageRecordLength(name_length, true, true) +
         (chunk.pages() - present) * PageRecordLength(name_length, false, true) +
         (chunk.first_page == 0 ? 1 + name_length : 0);
}

void LegacyStream::Settle(std::uint64_t chunk) {
  const WorkChunk pages = plan_.chunk(chunk);
  const std::uint64_t length = LengthOf(pages, present_[pages.block].CountSet(pages.first_page, pages.end_page));
  const std::lock_guard lock(settling_);
  lengths_[chunk] = length;
  std::uint64_t known = known_.load(std::memory_order_relaxed);
  for (; known < lengths_.size() && lengths_[known] != 0; ++known)
    starts_[known + 1] = starts_[known] + lengths_[known];
  known_.store(known, std::memory_order_release);
}

LegacyStream::Known LegacyStream::known() const {
  const std::uint64_t chunks = known_.load(std::memory_order_acquire);
  const bool whole = chunks == plan_.chunk_count();
  return {FileOffset{starts_[chunks] + (whole ? suffix_.size() : 0)}, whole};
}

void LegacyStream::Make(FileOffset offset, std::span<std::byte> out) const {
  Clip clip(offset, out);
  clip.Offer(0, prefix_);
  const std::uint64_t known = known_.load(std::memory_order_acquire);
  const std::span starts = std::span(starts_).first(known);
  const auto behind = std::ranges::upper_bound(starts, clip.begin());
  auto number = static_cast<std::uint64_t>(behind - starts.begin());
  if (number > 0) --number;
  for (; number < known && starts[number] < clip.end(); ++number) MakeChunk(number, clip);
  if (known == plan_.chunk_count()) clip.Offer(starts_[known], suffix_);
}

void LegacyStream::MakeChunk(std::uint64_t number, Clip& clip) const {
  const WorkChunk chunk = plan_.chunk(number);
  const RamBlock& block = guest_.blocks[chunk.block];
  std::uint64_t at = starts_[number];
  for (std::uint64_t page = chunk.first_page; page < chunk.end_page && at < clip.end(); ++page) {
    const bool present = present_[chunk.block].Test(page);
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
