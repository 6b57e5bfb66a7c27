#include "format/work_plan.h"

#include <algorithm>

namespace vmsave {

WorkPlan::WorkPlan(const std::vector<std::uint64_t>& pages_of_blocks, std::uint64_t chunk_pages)
    : pages_(pages_of_blocks), chunk_pages_(chunk_pages) {
  std::uint64_t chunks = 0;
  for (const std::uint64_t pages : pages_of_blocks) {
    first_chunk_.push_back(chunks);
    chunks += (pages + chunk_pages - 1) / chunk_pages;
    length_ += PagesToBytes(PageIndex{pages});
  }
  first_chunk_.push_back(chunks);
}

WorkChunk WorkPlan::chunk(std::uint64_t number) const {
  const auto behind = std::ranges::upper_bound(first_chunk_, number);
  const auto block = static_cast<std::size_t>(behind - first_chunk_.begin()) - 1;
  const std::uint64_t first = (number - first_chunk_[block]) * chunk_pages_;
  return {block, first, std::min(first + chunk_pages_, pages_[block])};
}

}  // namespace vmsave
