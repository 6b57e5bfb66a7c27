#include "qemu/multifd_receiver.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "format/multifd_packet.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

constexpr auto kLookAround = std::chrono::milliseconds(100);

}  // namespace

// Pages in the main stream: zero pages from older machine types.
class MultifdReceiver::MainPages : public PageSink {
 public:
  MainPages(MultifdReceiver& receiver, const ChannelContext& context) : receiver_(receiver), context_(context) {}

  void OnBlocks(const StreamContents& contents) override {
    {
      const std::lock_guard lock(receiver_.mutex_);
      receiver_.store_ = receiver_.make_store_(contents);
      receiver_.blocks_ = contents.blocks;
    }
    receiver_.store_made_.notify_all();
    channel_ = receiver_.store_->OpenChannel();
  }

  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    Flush();
    const std::span<const iovec> pieces = channel_->Place(block, std::span(&page, 1));
    placed_.assign(pieces.begin(), pieces.end());
    return page_;
  }

  void OnZeroPage(std::size_t block, PageIndex page) override {
    if (!placed_.empty() || block != block_ || zero_.size() == PageChannel::kMaxPages) Flush();
    block_ = block;
    zero_.push_back(page);
  }

  void OnEndOfRecords() override {
    Settle();
    receiver_.sync_.OnEndOfSection(context_);
  }

  void OnMultifdFlush() override {
    Settle();
    receiver_.sync_.OnFlush(context_);
  }

 private:
  void Settle() {
    Flush();
    if (channel_) channel_->Settle();
  }

  void Flush() {
    if (!placed_.empty()) {
      std::span<const std::byte> rest(page_);
      for (const iovec& piece : placed_) {
        std::copy_n(rest.begin(), piece.iov_len, static_cast<std::byte*>(piece.iov_base));
        rest = rest.subspan(piece.iov_len);
      }
      placed_.clear();
      channel_->Commit();
    }
    if (!zero_.empty()) channel_->Zero(block_, zero_);
    zero_.clear();
  }

  MultifdReceiver& receiver_;
  const ChannelContext& context_;
  std::unique_ptr<PageChannel> channel_;
  std::size_t block_ = 0;
  std::vector<PageIndex> zero_;  // of block_
  std::vector<iovec> placed_;    // where page_ goes
  std::array<std::byte, kPageBytes> page_{};
};

class MultifdReceiver::Channel {
 public:
  Channel(MultifdReceiver& receiver, const FileDescriptor& socket, const ChannelContext& context)
      : receiver_(receiver),
        context_(context),
        reader_(socket, context.interrupt(), [&context] { context.EndWithOthers(); }) {}

  void Receive() {
    bool is_first = true;
    while (reader_.ReadAllOrEnd(header_)) {
      packet_.Decode(header_);
      const bool has_pages = packet_.page_count() > 0;
      if (has_pages) {
        if (is_first) receiver_.sync_.OnFirstPages();
        TakePages();
      }
      if (packet_.sync()) {
        Settle();
        receiver_.sync_.OnSyncPacket(is_first && !has_pages, context_);
      }
      is_first = false;
    }
    Settle();
    receiver_.sync_.OnChannelEnd();
  }

 private:
  void TakePages() {
    if (!channel_) Open();
    const std::size_t block = FindBlock();
    packet_.CheckPagesWithin(receiver_.blocks_[block].length);
    if (!packet_.normal_pages().empty()) {
      reader_.ReadAll(channel_->Place(block, packet_.normal_pages()));
      channel_->Commit();
    }
    if (!packet_.zero_pages().empty()) channel_->Zero(block, packet_.zero_pages());
  }

  void Open() {
    receiver_.WaitForStore(context_);
    channel_ = receiver_.store_->OpenChannel();
  }

  // Most packets are of the same block as the one before.
  std::size_t FindBlock() {
    const std::vector<StreamBlock>& blocks = receiver_.blocks_;
    if (blocks[block_].name == packet_.block()) return block_;
    const auto found = std::ranges::find(blocks, packet_.block(), &StreamBlock::name);
    if (found == blocks.end()) {
      throw Error(
          ErrorKind::kDamaged, fmt::format("cannot read {}", reader_.name()),
          fmt::format("packet {} is of RAM block \"{}\", which is not in the list", packet_.number(), packet_.block()));
    }
    block_ = static_cast<std::size_t>(found - blocks.begin());
    return block_;
  }

  void Settle() {
    if (channel_) channel_->Settle();
  }

  MultifdReceiver& receiver_;
  const ChannelContext& context_;
  SocketReader reader_;
  std::array<std::byte, kMultifdPacketBytes> header_{};
  MultifdPacket packet_;
  std::unique_ptr<PageChannel> channel_;
  std::size_t block_ = 0;  // of the packet before
};

MultifdReceiver::MultifdReceiver(MultifdSockets sockets, MakeStore make_store, ByteCount most_ram)
    : sockets_(std::move(sockets)),
      make_store_(std::move(make_store)),
      most_ram_(most_ram),
      sync_(static_cast<unsigned>(sockets_.channels.size())) {}

std::vector<const FileDescriptor*> MultifdReceiver::sockets() const {
  std::vector<const FileDescriptor*> all{&sockets_.main};
  for (const FileDescriptor& channel : sockets_.channels) all.push_back(&channel);
  return all;
}

void MultifdReceiver::ReceiveMain(const ChannelContext& context) {
  SocketReader reader(sockets_.main, context.interrupt(), [&context] { context.EndWithOthers(); });
  SocketSource source(reader);
  MainPages pages(*this, context);
  guest_.contents = ReadStreamUpToDevices(source, pages, {.most_ram = most_ram_});
  sync_.OnEndOfRam();
  guest_.device_state = ReadDeviceState(source);
}

void MultifdReceiver::ReceiveChannel(unsigned channel, const ChannelContext& context) {
  Channel(*this, sockets_.channels[channel], context).Receive();
}

void MultifdReceiver::WaitForStore(const ChannelContext& context) {
  std::unique_lock lock(mutex_);
  while (!store_) {
    context.EndWithOthers();
    store_made_.wait_for(lock, kLookAround);
  }
}

}  // namespace vmsave
