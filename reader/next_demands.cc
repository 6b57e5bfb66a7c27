#include "reader/next_demands.h"

#include <algorithm>
#include <iterator>

namespace vmsave {
namespace {

constexpr std::size_t kMostWalks = 32;
constexpr std::uint64_t kLeastPassed = 4;  // that many chunks in a row are no chance any more
constexpr std::uint64_t kMostAhead = (8 << 20) / kPageBytes;
constexpr std::uint64_t kFarthest =
    (64 << 20) / kPageBytes;  // a guest passes what was sent unasked, and nobody sees it

}  // namespace

NextDemands::Foresight NextDemands::After(const WorkChunk& chunk) {
  if (IsReadAhead(chunk)) return {};
  Walk walk = TakeWalkTo(chunk);
  Foresight seen;
  if (walk.next > walk.ahead_from) seen.passed = {chunk.block, walk.ahead_from, walk.next};
  ++walk.passed;
  walk.ahead_from = walk.next = chunk.end_page;
  if (walk.passed >= kLeastPassed) {
    const std::uint64_t count = std::min(walk.passed, std::max<std::uint64_t>(kMostAhead / chunk.pages(), 1));
    walk.next = EndOf(count, chunk);
    walk.passed += count;
    if (walk.next > walk.ahead_from) seen.ahead = {chunk.block, walk.ahead_from, walk.next};
  }
  Keep(walk);
  return seen;
}

// Those that may be chance are the first to be forgotten.
void NextDemands::Keep(const Walk& walk) {
  walks_.push_front(walk);
  if (walks_.size() <= kMostWalks) return;
  const auto is_chance = [](const Walk& other) { return other.passed < kLeastPassed; };
  const auto oldest = std::find_if(walks_.rbegin(), walks_.rend(), is_chance);
  walks_.erase(oldest == walks_.rend() ? std::prev(walks_.end()) : std::prev(oldest.base()));
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
    return walk.block == chunk.block && walk.next <= chunk.first_page && chunk.first_page - walk.next <= kFarthest &&
           !next_left_(walk.block, walk.next, chunk.first_page);
  });
  if (found == walks_.end()) return {.block = chunk.block, .ahead_from = 0, .next = 0, .passed = 0};
  const Walk walk = *found;
  walks_.erase(found);
  return walk;
}

// Of so many chunks that are left behind this one, none of them far from the one before.
std::uint64_t NextDemands::EndOf(std::uint64_t count, const WorkChunk& behind) const {
  std::uint64_t end = behind.end_page;
  for (; count > 0; --count) {
    const std::optional<WorkChunk> left = next_left_(behind.block, end, end + kFarthest);
    if (!left) break;
    end = left->end_page;
  }
  return end;
}

}  // namespace vmsave
