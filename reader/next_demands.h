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
  // The first chunk of a block of which something is left to be sent, of what lies between these pages. Chunks are what
  // is read for one question.
  using NextLeft = std::function<std::optional<WorkChunk>(std::size_t block, std::uint64_t from, std::uint64_t to)>;

  explicit NextDemands(NextLeft next_left) : next_left_(std::move(next_left)) {}

  // What a guest that goes in order has passed of what was ahead of it, and what is now.
  struct Foresight {
    std::optional<WorkChunk> passed;
    std::optional<WorkChunk> ahead;
  };

  // The guest asks for `chunk`, of which something is left. Ahead is what it is likely to ask for next: where it has
  // come to this chunk in order, as many behind it as it has passed; nothing where it has not.
  Foresight After(const WorkChunk& chunk);

 private:
  struct Walk {
    std::size_t block;
    std::uint64_t ahead_from;  // page from which on the last was read ahead
    std::uint64_t next;        // page with which it goes on
    std::uint64_t passed;      // chunks
  };

  bool IsReadAhead(const WorkChunk& chunk) const;
  Walk TakeWalkTo(const WorkChunk& chunk);
  void Keep(const Walk& walk);
  std::uint64_t EndOf(std::uint64_t count, const WorkChunk& behind) const;

  const NextLeft next_left_;
  std::deque<Walk> walks_;  // of several processors; the latest first
};

}  // namespace vmsave
