// Pages on their way from the one thread that reads a stream to the threads that send them.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "format/multifd_packet.h"
#include "io/aligned_buffer.h"
#include "io/channels.h"

namespace vmsave {

// Pages of one block and their bytes, as many as one packet holds.
struct PageBatch {
  std::size_t block = 0;
  std::vector<PageIndex> pages;
  AlignedBuffer buffer{kMultifdPagesPerPacket * kPageBytes};

  bool full() const { return pages.size() == kMultifdPagesPerPacket; }
  std::span<std::byte> Bytes(std::size_t number) { return buffer.bytes().subspan(number * kPageBytes, kPageBytes); }
};

// A fixed number of batches that go round between one dealer and several senders. A wait ends without a batch where
// ChannelContext::GoOn says so; it throws Error{kInterrupted} as that does.
class PageBatches {
 public:
  explicit PageBatches(std::size_t count);

  // The dealer's: an empty batch; nullptr where another channel has failed.
  PageBatch* TakeEmpty(const ChannelContext& context);
  void Deal(PageBatch* batch);

  // The dealer's: waits until every batch that was dealt has been sent. False where another channel has failed.
  // REQUIRES: it holds none.
  bool WaitAllSent(const ChannelContext& context);

  // The dealer's: no more batches will come.
  void Close();

  // A sender's: nullptr where none will come any more, or another channel has failed.
  PageBatch* TakeDealt(const ChannelContext& context);
  void PutBack(PageBatch* batch);

 private:
  template <class Condition>
  bool WaitUntil(std::unique_lock<std::mutex>& lock, const ChannelContext& context, const Condition& condition);

  std::deque<PageBatch> batches_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::vector<PageBatch*> empty_;
  std::deque<PageBatch*> dealt_;
  bool closed_ = false;
};

}  // namespace vmsave
