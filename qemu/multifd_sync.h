// Where the channels of a multifd migration and its main stream wait for each other.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "io/channels.h"

namespace vmsave {

// Between two sync points a page is sent at most once; behind one it may come again on any channel, or as a zero page
// in the main stream. Nobody may go past a sync point before all have settled what came before it.
//
// A channel sees a sync point as a packet with SYNC set. In the main stream it is a MULTIFD_FLUSH record; or, from QEMU
// < 8.1 and from machine types made before it, the end of each section (QEMU migration/ram.c). The stream does not say
// which of both it is. It shows: sections that are sync points begin with one behind the block list, before any page.
// That first one needs no waiting, so it can be used to find out.
//
// One for each migration; used by the threads of one RunChannels, whose failure and interrupt end every wait.
class MultifdSync {
 public:
  explicit MultifdSync(unsigned channels) : channels_(channels) {}

  // A channel's first packet brings pages.
  void OnFirstPages();

  // A channel has read a SYNC packet, and settled all that came before. Returns when it may go on. `is_first`: it is
  // the channel's first packet, and brought no page. Throws Error{kDamaged} where another channel has ended.
  void OnSyncPacket(bool is_first, const ChannelContext& context);

  // A channel was closed by QEMU. Right once the main stream has ended, or is about to.
  void OnChannelEnd();

  // The main stream; they return when it may be read on. Throw as above.
  void OnFlush(const ChannelContext& context);
  void OnEndOfSection(const ChannelContext& context);

  // The main stream is past ram: nobody waits any more. QEMU 9.1 and 9.2 send a last SYNC on each channel that has no
  // MULTIFD_FLUSH (migration/ram.c since QEMU commit 637280aeb242).
  void OnEndOfRam();

 private:
  enum class SyncAt { kUnknown, kEachSection, kFlush };
  using Lock = std::unique_lock<std::mutex>;

  void Decide();
  void Meet(Lock& lock, const ChannelContext& context);
  template <class Condition>
  void WaitUntil(Lock& lock, const ChannelContext& context, Condition condition);

  const unsigned channels_;
  std::mutex mutex_;
  std::condition_variable changed_;
  SyncAt sync_at_ = SyncAt::kUnknown;
  bool block_list_over_ = false;
  bool pages_came_first_ = false;
  unsigned syncs_came_first_ = 0;
  unsigned waiting_ = 0;      // at the present sync point
  std::uint64_t points_ = 0;  // that all have passed
  unsigned ended_ = 0;        // channels
  bool ram_over_ = false;
};

}  // namespace vmsave
