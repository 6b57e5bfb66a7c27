// In which order the pages are read that nobody has asked for yet: those that the guest is expected to ask for, then
// near what it asked for, then all the rest as it lies in the file.
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
  // `expected`: in that order; within the blocks.
  explicit FillOrder(WorkPlan plan, std::deque<WorkChunk> expected = {});

  // The pages around this one come next, unless they have come.
  void Prefer(std::size_t block, std::uint64_t page);

  // Comes before all others.
  void Expect(const WorkChunk& chunk) { expected_.push_front(chunk); }

  // Whether the next one is.
  bool IsNextExpected() const { return !expected_.empty(); }

  // Each page comes once at least, expected ones more than once. Nothing after the last.
  std::optional<WorkChunk> Next();

  // The rest of the one that came last: comes again, in its place.
  void PutBack(const WorkChunk& rest);

 private:
  std::optional<WorkChunk> Take(std::uint64_t number);

  WorkPlan plan_;
  std::deque<WorkChunk> expected_;
  bool last_was_expected_ = false;
  std::optional<WorkChunk> rest_;  // of one that was not expected
  std::deque<std::uint64_t> preferred_;
  std::vector<bool> taken_;  // of the plan
  std::uint64_t next_ = 0;   // of the plan: none before it is left
};

}  // namespace vmsave
