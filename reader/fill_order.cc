#include "reader/fill_order.h"

#include <utility>

namespace vmsave {

FillOrder::FillOrder(WorkPlan plan, std::deque<WorkChunk> early)
    : plan_(std::move(plan)), early_(std::move(early)), taken_(plan_.chunk_count()) {}

// The last one that was asked for first: what is older may not matter any more.
void FillOrder::Prefer(std::size_t block, std::uint64_t page) {
  constexpr std::size_t kMostPreferred = 64;
  const std::uint64_t number = plan_.NumberOf(block, page);
  if (taken_[number]) return;
  std::erase(preferred_, number);
  preferred_.push_front(number);
  if (preferred_.size() > kMostPreferred) preferred_.pop_back();
}

std::optional<WorkChunk> FillOrder::Next() {
  if (!early_.empty()) {
    const WorkChunk chunk = early_.front();
    early_.pop_front();
    return chunk;
  }
  while (!preferred_.empty()) {
    const std::uint64_t number = preferred_.front();
    preferred_.pop_front();
    if (const auto chunk = Take(number)) return chunk;
  }
  while (next_ < plan_.chunk_count()) {
    if (const auto chunk = Take(next_++)) return chunk;
  }
  return std::nullopt;
}

std::optional<WorkChunk> FillOrder::Take(std::uint64_t number) {
  if (taken_[number]) return std::nullopt;
  taken_[number] = true;
  return plan_.chunk(number);
}

}  // namespace vmsave
