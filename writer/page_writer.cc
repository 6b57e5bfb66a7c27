#include "writer/page_writer.h"

#include <algorithm>

namespace vmsave {

PageWriter::PageWriter(const PagePlaces& places, std::unique_ptr<IoEngine> engine)
    : places_(places), users_(engine->depth(), 0), engine_(std::move(engine)) {
  pages_.reserve(kBufferPages);
}

std::span<std::byte> PageWriter::Room(std::size_t block, std::size_t count) {
  if (block != block_ || pages_.size() + count > kBufferPages) Submit();
  block_ = block;
  if (!filling_) AcquireBuffer();
  return buffers_[*filling_].bytes().subspan(pages_.size() * kPageBytes, count * kPageBytes);
}

void PageWriter::Took(std::span<const PageIndex> pages) {
  for (const PageIndex page : pages) pages_.push_back({page.value(), pages_.size()});
  if (pages_.size() == kBufferPages) Submit();
}

void PageWriter::Drain() {
  Submit();
  while (engine_->in_flight() > 0) WaitForOne();
}

void PageWriter::AcquireBuffer() {
  if (free_.empty() && buffers_.size() < engine_->depth()) {
    free_.push_back(buffers_.size());
    buffers_.emplace_back(kBufferPages * kPageBytes);
  }
  while (free_.empty()) WaitForOne();
  filling_ = free_.back();
  free_.pop_back();
  users_[*filling_] = 1;
}

void PageWriter::Submit() {
  if (!filling_) return;
  KeepLastCopies();
  const auto end_run = [](const Page& page, const Page& next) {
    return next.page != page.page + 1 || next.slot != page.slot + 1;
  };
  for (auto first = pages_.begin(); first != pages_.end();) {
    auto last = std::adjacent_find(first, pages_.end(), end_run);
    if (last != pages_.end()) ++last;
    SubmitRun({first, last});
    first = last;
  }
  pages_.clear();
  Release(*std::exchange(filling_, std::nullopt));
}

// Two writes of one page in flight at once would be done in any order.
void PageWriter::KeepLastCopies() {
  if (std::ranges::adjacent_find(pages_, std::ranges::greater_equal(), &Page::page) == pages_.end()) return;
  std::ranges::stable_sort(pages_, {}, &Page::page);
  const auto kept =
      std::unique(pages_.rbegin(), pages_.rend(), [](const Page& a, const Page& b) { return a.page == b.page; });
  pages_.erase(pages_.begin(), kept.base());
}

void PageWriter::SubmitRun(std::span<const Page> run) {
  if (engine_->full()) WaitForOne();
  const std::span<std::byte> bytes =
      buffers_[*filling_].bytes().subspan(run.front().slot * kPageBytes, run.size() * kPageBytes);
  engine_->SubmitWrite(places_.file(), bytes, places_.Of(block_, PageIndex{run.front().page}), *filling_);
  ++users_[*filling_];
}

void PageWriter::Release(RequestId buffer) {
  if (--users_[buffer] == 0) free_.push_back(buffer);
}

}  // namespace vmsave
