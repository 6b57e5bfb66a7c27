// Receives a multifd migration out of a guest: pages over many channels, the rest over a main stream.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "format/stream_reader.h"
#include "io/channels.h"
#include "qemu/multifd_sockets.h"
#include "qemu/multifd_sync.h"
#include "qemu/received_guest.h"
#include "writer/page_store.h"

namespace vmsave {

// Its members run at the same time, each on a thread of one RunChannels. What comes is taken to be hostile. They throw
// Error{kDamaged} for what is no such migration, Error{kFailed}, Error{kInterrupted}, and what the store throws.
class MultifdReceiver {
 public:
  // Makes the store once the RAM blocks are known; called on the main stream's thread.
  using MakeStore = std::function<std::unique_ptr<PageStore>(const StreamContents&)>;

  // RAM blocks of more than `most_ram` are refused.
  MultifdReceiver(MultifdSockets sockets, MakeStore make_store, ByteCount most_ram = kMostRam);

  // All that it receives from: the main stream first, then the channels.
  std::vector<const FileDescriptor*> sockets() const;

  void ReceiveMain(const ChannelContext& context);
  void ReceiveChannel(unsigned channel, const ChannelContext& context);

  // Once all have returned.
  const ReceivedGuest& guest() const { return guest_; }
  PageStore& store() { return *store_; }

 private:
  class MainPages;
  class Channel;

  // Waits until the blocks are known.
  void WaitForStore(const ChannelContext& context);

  MultifdSockets sockets_;
  MakeStore make_store_;
  ByteCount most_ram_;
  MultifdSync sync_;
  std::mutex mutex_;
  std::condition_variable store_made_;
  std::unique_ptr<PageStore> store_;  // does not change once it is there
  std::vector<StreamBlock> blocks_;   // the same
  ReceivedGuest guest_;
};

}  // namespace vmsave
