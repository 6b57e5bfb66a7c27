// What a guest is likely to ask for next: it is seen when it goes through its memory in order.
#pragma once

#include <deque>
#include <functional>
#include <optional>

#include "format/work_plan.h"

namespace vmsave {

// Not thread-safe.
class NextDemands {
 public:
  // The first chunk of a block, from this page on, of which something is left to be sent. Chunks are what is read for
  // one question.
  using NextLeft = std::function<std::optional<WorkChunk>(std::size_t block, std::uint64_t page)>;

  explicit NextDemands(NextLeft next_left) : next_left_(std::move(next_left)) {}

  // The guest asks for `chunk`, of which something is left. What it is likely to ask for next: where it has come to
  // this chunk in order, as many behind it as it has passed; nothing where it has not.
  std::optional<WorkChunk> After(const WorkChunk& chunk);

 private:
  struct Walk {
    std::size_t block;
    std::uint64_t ahead_from;  // page from which on the last was read ahead
    std::uint64_t next;        // page with which it goes on
    std::uint64_t passed;      // chunks
  };

  bool IsReadAhead(const WorkChunk& chunk) const;
  Walk TakeWalkTo(const WorkChunk& chunk);
  std::uint64_t EndOf(std::uint64_t count, const WorkChunk& behind) const;

  const NextLeft next_left_;
  std::deque<Walk> walks_;  // of several processors; the latest first
};

}  // namespace vmsave
