#include "reader/multifd_link.h"

namespace vmsave {
namespace {

constexpr std::size_t kRecordsPerWrite = 256 << 10;  // bytes

iovec Piece(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};  // iovec has no const; a sink only reads
}

bool Continues(const iovec& piece, const std::byte* next) {
  return static_cast<const std::byte*>(piece.iov_base) + piece.iov_len == next;
}

}  // namespace

void PacketSender::Add(PageIndex page, std::span<const std::byte> bytes) {
  if (packet_.page_count() == 0) {
    packet_.Start(packet_number_.fetch_add(1, std::memory_order_relaxed), block_);
    pieces_.assign(1, Piece(encoded_));
  }
  packet_.AddNormal(page);
  if (pieces_.size() > 1 && Continues(pieces_.back(), bytes.data())) {
    pieces_.back().iov_len += bytes.size();
  } else {
    pieces_.push_back(Piece(bytes));
  }
  if (packet_.page_count() == kMultifdPagesPerPacket) SendPacket();
}

void PacketSender::Send() {
  if (packet_.page_count() != 0) SendPacket();
}

void PacketSender::SendSync() {
  packet_.Start(packet_number_.fetch_add(1, std::memory_order_relaxed), "");
  packet_.set_sync(true);
  pieces_.assign(1, Piece(encoded_));
  SendPacket();
}

void PacketSender::SendPacket() {
  packet_.Encode(encoded_);
  channel_.Write(pieces_);
  packet_.Start(0, "");
}

MultifdLink::MultifdLink(ByteSink& main, const std::vector<ByteSink*>& channels, SyncAt sync_at)
    : main_(main), sync_at_(sync_at) {
  for (ByteSink* channel : channels) channels_.emplace_back(*channel, packet_number_);
}

void MultifdLink::Begin(const StreamContents& contents) {
  frame_ = contents.frame;
  AppendBlockList(records_, frame_, contents.block_shapes());
  Synchronise();
}

void MultifdLink::SendZero(std::string_view block, PageIndex page) {
  const RecordHead head = MakeRecordHead(block, page, false, block == last_zero_of_);
  last_zero_of_ = block;
  records_.Append(head.bytes());
  records_.AppendZeros(1);
  if (records_.size() >= kRecordsPerWrite) SendRecords();
}

void MultifdLink::Synchronise() {
  SendSyncPackets();
  if (sync_at_ == SyncAt::kFlush) {
    records_.AppendBigEndian(ram_flag::kMultifdFlush);
  } else {
    AppendRamSectionEnd(records_, frame_);
    AppendRamPart(records_, frame_);
  }
  SendRecords();
}

// Two more EOS: the present section's and ram END's. Where they are no sync points, their SYNC packets come too late to
// stop anything: QEMU wakes the channels' threads when it has loaded the guest.
void MultifdLink::Finish(const StreamFrame& frame, std::span<const std::byte> device_state) {
  Synchronise();
  SendSyncPackets();
  SendSyncPackets();
  AppendLegacyTail(records_, frame, device_state);
  SendRecords();
}

void MultifdLink::SendRecords() {
  main_.Write(records_.Take());
  records_ = ByteWriter();
}

// Before the sync point itself: QEMU's main thread, which answers nothing while it waits, finds them on their way.
void MultifdLink::SendSyncPackets() {
  for (PacketSender& channel : channels_) channel.SendSync();
}

}  // namespace vmsave
