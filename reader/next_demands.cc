#include "reader/next_demands.h"

#include <algorithm>

namespace vmsave {
namespace {

constexpr std::size_t kMostWalks = 32;
constexpr std::uint64_t kLeastPassed = 4;  // that many chunks in a row are no chance any more
constexpr std::uint64_t kMostAhead = (8 << 20) / kPageBytes;
constexpr std::uint64_t kFarthest =
    (64 << 20) / kPageBytes;  // a guest passes what was sent unasked, and nobody sees it

}  // namespace

std::optional<WorkChunk> NextDemands::After(const WorkChunk& chunk) {
  if (IsReadAhead(chunk)) return std::nullopt;
  Walk walk = TakeWalkTo(chunk);
  ++walk.passed;
  walk.ahead_from = walk.next = chunk.end_page;
  std::optional<WorkChunk> ahead;
  if (walk.passed >= kLeastPassed) {
    const std::uint64_t count = std::min(walk.passed, std::max<std::uint64_t>(kMostAhead / chunk.pages(), 1));
    walk.next = EndOf(count, chunk);
    walk.passed += count;
    if (walk.next > walk.ahead_from) ahead = {chunk.block, walk.ahead_from, walk.next};
  }
  walks_.push_front(walk);
  if (walks_.size() > kMostWalks) walks_.pop_back();
  return ahead;
}

// The guest is faster than the disk.
bool NextDemands::IsReadAhead(const WorkChunk& chunk) const {
  return std::ranges::any_of(walks_, [&](const Walk& walk) {
    return walk.block == chunk.block && walk.ahead_from <= chunk.first_page && chunk.first_page < walk.next;
  });
}

// The one that has come to this chunk, or one that begins here.
NextDemands::Walk NextDemands::TakeWalkTo(const WorkChunk& chunk) {
  const auto found = std::ranges::find_if(walks_, [&](const Walk& walk) {
    if (walk.block != chunk.block || walk.next > chunk.first_page || chunk.first_page - walk.next > kFarthest) {
      return false;
    }
    const std::optional<WorkChunk> left = next_left_(walk.block, walk.next);
    return left && left->first_page >= chunk.first_page;
  });
  if (found == walks_.end()) return {.block = chunk.block, .ahead_from = 0, .next = 0, .passed = 0};
  const Walk walk = *found;
  walks_.erase(found);
  return walk;
}

// Of so many chunks that are left behind this one.
std::uint64_t NextDemands::EndOf(std::uint64_t count, const WorkChunk& behind) const {
  std::uint64_t end = behind.end_page;
  for (; count > 0; --count) {
    const std::optional<WorkChunk> left = next_left_(behind.block, end);
    if (!left) break;
    end = left->end_page;
  }
  return end;
}

}  // namespace vmsave
