#include "reader/fill_order.h"

#include <utility>

namespace vmsave {

FillOrder::FillOrder(WorkPlan plan, std::deque<WorkChunk> expected)
    : plan_(std::move(plan)), expected_(std::move(expected)), taken_(plan_.chunk_count()) {}

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
  last_was_expected_ = IsNextExpected();
  if (last_was_expected_) {
    const WorkChunk chunk = expected_.front();
    expected_.pop_front();
    return chunk;
  }
  if (rest_) return std::exchange(rest_, std::nullopt);
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

void FillOrder::PutBack(const WorkChunk& rest) {
  if (last_was_expected_) return expected_.push_front(rest);
  rest_ = rest;
}

std::optional<WorkChunk> FillOrder::Take(std::uint64_t number) {
  if (taken_[number]) return std::nullopt;
  taken_[number] = true;
  return plan_.chunk(number);
}

}  // namespace vmsave
