// The sending end of a multifd migration: a main stream and several channels, kept in step (QEMU
// migration/multifd.c and migration/ram.c of 4.0 to 10.0).
//
// A channel's packets are received by a thread of its own, which stops at a packet with SYNC until QEMU's main thread
// has met as many SYNCs on all channels. So every sync point of the main stream needs one SYNC packet on every channel,
// and what lies before it on any channel is in its place before anything behind it is received.
#pragma once

#include <atomic>
#include <deque>
#include <string>
#include <vector>

#include "format/bytes.h"
#include "format/multifd_packet.h"
#include "format/stream_reader.h"
#include "reader/stream_sender.h"

namespace vmsave {

// Which records of the main stream are sync points to the receiver.
//   kEverySection  every EOS: QEMU <= 8.0, which does not know MULTIFD_FLUSH
//   kFlush         every MULTIFD_FLUSH: QEMU >= 8.1. It may take EOS for one too (machine types <= 8.0, or the property
//                  migration.multifd-flush-after-each-section), which nobody can ask it: there is no EOS, then, until
//                  the last page has been received.
enum class SyncAt { kEverySection, kFlush };

// Sends pages over one channel. One thread's at a time.
class PacketSender {
 public:
  PacketSender(ByteSink& channel, std::atomic<std::uint64_t>& packet_number)
      : channel_(channel), packet_number_(packet_number) {}

  // The pages that are added belong to that block. REQUIRES: no page was added since the last Send.
  void SetBlock(std::string_view name) { block_ = name; }

  // Adds a page. Its bytes are read until Send; full packets are sent at once.
  void Add(PageIndex page, std::span<const std::byte> bytes);

  // Sends the pages that were added and not sent yet.
  void Send();

  void SendSync();

 private:
  void SendPacket();

  ByteSink& channel_;
  std::atomic<std::uint64_t>& packet_number_;
  std::string block_;
  MultifdPacket packet_;
  std::array<std::byte, kMultifdPacketBytes> encoded_{};
  std::vector<iovec> pieces_;
};

// Begin, then pages and zero pages with Synchronise between them, then Finish. All members but channel() are for one
// thread, and called while no channel sends.
class MultifdLink {
 public:
  // The hello of each channel has been sent.
  MultifdLink(ByteSink& main, const std::vector<ByteSink*>& channels, SyncAt sync_at);

  unsigned channel_count() const { return static_cast<unsigned>(channels_.size()); }

  // For the thread that sends over the channel.
  PacketSender& channel(unsigned number) { return channels_[number]; }

  // Sends the stream's head. The block list is in force before the first page comes.
  void Begin(const StreamContents& contents);

  // Sends a zero page over the main stream: it is cleared there, whatever it held. (A multifd packet's zero page is
  // not: QEMU < 9.0 does not know them, and a newer one takes a page that came for the first time for zero already.)
  // REQUIRES: since the last Synchronise, the page was sent over no channel.
  void SendZero(std::string_view block, PageIndex page);

  // What was sent before is in its place before anything that is sent after.
  void Synchronise();

  // Sends the stream's end. `frame`: of what was begun, now with its switchover_start.
  void Finish(const StreamFrame& frame, std::span<const std::byte> device_state);

 private:
  void SendRecords();
  void SendSyncPackets();

  ByteSink& main_;
  SyncAt sync_at_;
  StreamFrame frame_;
  std::atomic<std::uint64_t> packet_number_{0};
  std::deque<PacketSender> channels_;
  ByteWriter records_;        // of the main stream, not sent yet
  std::string last_zero_of_;  // the block of the last record
};

}  // namespace vmsave
