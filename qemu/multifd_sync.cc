#include "qemu/multifd_sync.h"

#include <chrono>

namespace vmsave {
namespace {

constexpr auto kLookAround = std::chrono::milliseconds(100);

}  // namespace

void MultifdSync::OnFirstPages() {
  const Lock lock(mutex_);
  pages_came_first_ = true;
  Decide();
}

void MultifdSync::OnSyncPacket(bool is_first, const ChannelContext& context) {
  Lock lock(mutex_);
  if (is_first) {
    ++syncs_came_first_;
    Decide();
    WaitUntil(lock, context, [&] { return sync_at_ != SyncAt::kUnknown; });
    if (sync_at_ == SyncAt::kEachSection) return;
  }
  Meet(lock, context);
}

void MultifdSync::OnChannelEnd() {
  const Lock lock(mutex_);
  ++ended_;
  changed_.notify_all();
}

void MultifdSync::OnFlush(const ChannelContext& context) {
  Lock lock(mutex_);
  if (sync_at_ == SyncAt::kEachSection) {
    throw Error(ErrorKind::kDamaged, "cannot read the guest's migration stream",
                "it has MULTIFD_FLUSH records, but its channels are in step with its sections");
  }
  sync_at_ = SyncAt::kFlush;
  changed_.notify_all();
  Meet(lock, context);
}

void MultifdSync::OnEndOfSection(const ChannelContext& context) {
  Lock lock(mutex_);
  if (!block_list_over_) {
    block_list_over_ = true;
    Decide();
    return;
  }
  WaitUntil(lock, context, [&] { return sync_at_ != SyncAt::kUnknown; });
  if (sync_at_ == SyncAt::kEachSection) Meet(lock, context);
}

void MultifdSync::OnEndOfRam() {
  const Lock lock(mutex_);
  ram_over_ = true;
  changed_.notify_all();
}

void MultifdSync::Decide() {
  if (sync_at_ != SyncAt::kUnknown) return;
  if (pages_came_first_) sync_at_ = SyncAt::kFlush;
  if (block_list_over_ && syncs_came_first_ == channels_) sync_at_ = SyncAt::kEachSection;
  changed_.notify_all();
}

void MultifdSync::Meet(Lock& lock, const ChannelContext& context) {
  const std::uint64_t point = points_;
  if (++waiting_ == channels_ + 1) {
    waiting_ = 0;
    ++points_;
    changed_.notify_all();
    return;
  }
  WaitUntil(lock, context, [&] { return points_ != point; });
}

template <class Condition>
void MultifdSync::WaitUntil(Lock& lock, const ChannelContext& context, Condition condition) {
  while (!condition() && !ram_over_) {
    if (ended_ > 0) {
      throw Error(ErrorKind::kDamaged, "cannot read the guest's migration stream",
                  "one of its multifd channels was closed in the middle");
    }
    context.EndWithOthers();
    changed_.wait_for(lock, kLookAround);
  }
}

}  // namespace vmsave
