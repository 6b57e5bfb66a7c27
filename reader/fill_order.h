// In which order the pages are read that nobody has asked for yet: a list that somebody knew to be worth while, then
// near what was asked for, then all the rest as it lies in the file.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "format/work_plan.h"

namespace vmsave {

// Not thread-safe.
class FillOrder {
 public:
  // `early`: in that order; within the blocks.
  explicit FillOrder(WorkPlan plan, std::deque<WorkChunk> early = {});

  // The pages around this one come next, unless they have come.
  void Prefer(std::size_t block, std::uint64_t page);

  // Whether the next one is of that list.
  bool IsEarly() const { return !early_.empty(); }

  // Each page comes once at least, those of `early` twice. Nothing after the last.
  std::optional<WorkChunk> Next();

 private:
  std::optional<WorkChunk> Take(std::uint64_t number);

  WorkPlan plan_;
  std::deque<WorkChunk> early_;
  std::deque<std::uint64_t> preferred_;
  std::vector<bool> taken_;  // of the plan
  std::uint64_t next_ = 0;   // of the plan: none before it is left
};

}  // namespace vmsave
