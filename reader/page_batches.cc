#include "reader/page_batches.h"

#include <chrono>

namespace vmsave {
namespace {

constexpr auto kLookAround = std::chrono::milliseconds(100);  // for failures and interrupts

}  // namespace

PageBatches::PageBatches(std::size_t count) : batches_(count) {
  for (PageBatch& batch : batches_) empty_.push_back(&batch);
}

template <class Condition>
bool PageBatches::WaitUntil(std::unique_lock<std::mutex>& lock, const ChannelContext& context,
                            const Condition& condition) {
  while (!condition()) {
    if (!context.GoOn()) return false;
    changed_.wait_for(lock, kLookAround);
  }
  return true;
}

PageBatch* PageBatches::TakeEmpty(const ChannelContext& context) {
  std::unique_lock lock(mutex_);
  if (!WaitUntil(lock, context, [this] { return !empty_.empty(); })) return nullptr;
  PageBatch* const batch = empty_.back();
  empty_.pop_back();
  batch->pages.clear();
  return batch;
}

void PageBatches::Deal(PageBatch* batch) {
  const std::lock_guard lock(mutex_);
  dealt_.push_back(batch);
  changed_.notify_all();
}

bool PageBatches::WaitAllSent(const ChannelContext& context) {
  std::unique_lock lock(mutex_);
  return WaitUntil(lock, context, [this] { return empty_.size() == batches_.size(); });
}

void PageBatches::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

PageBatch* PageBatches::TakeDealt(const ChannelContext& context) {
  std::unique_lock lock(mutex_);
  if (!WaitUntil(lock, context, [this] { return closed_ || !dealt_.empty(); })) return nullptr;
  if (dealt_.empty()) return nullptr;
  PageBatch* const batch = dealt_.front();
  dealt_.pop_front();
  return batch;
}

void PageBatches::PutBack(PageBatch* batch) {
  const std::lock_guard lock(mutex_);
  empty_.push_back(batch);
  changed_.notify_all();
}

}  // namespace vmsave
