#include "reader/multifd_sender.h"

#include <utility>

#include "io/aligned_buffer.h"
#include "reader/image_stream.h"
#include "reader/page_batches.h"

namespace vmsave {
namespace {

constexpr std::size_t kChunksInFlight = 4;     // per channel
constexpr std::size_t kBatchesPerChannel = 3;  // one being sent, others ready

void SendAbsentPages(const StreamBlock& block, MultifdLink& link) {
  std::uint64_t page = 0;
  while (page < block.pages()) {
    const auto run = block.present.NextPresent(page, block.pages());
    for (const std::uint64_t end = run ? run->first : block.pages(); page < end; ++page) {
      link.SendZero(block.name, PageIndex{page});
    }
    if (run) page = run->first + run->count;
  }
}

void SendPresentPages(const StreamBlock& block, const WorkChunk& chunk, std::span<const std::byte> memory,
                      PacketSender& channel) {
  channel.SetBlock(block.name);
  auto run = block.present.NextPresent(chunk.first_page, chunk.end_page);
  for (; run; run = block.present.NextPresent(run->first + run->count, chunk.end_page)) {
    for (std::uint64_t page = run->first; page < run->first + run->count; ++page) {
      channel.Add(PageIndex{page}, memory.subspan((page - chunk.first_page) * kPageBytes, kPageBytes));
    }
  }
  channel.Send();
}

// One channel's part of a fixed-offset image.
class ChunkSender {
 public:
  ChunkSender(const Image& image, const FileDescriptor& pages, EngineKind engine, unsigned channels, PageChecks checks,
              PacketSender& channel, Progress& progress)
      : image_(image),
        channel_(channel),
        progress_(progress),
        buffers_(kChunksInFlight),
        reader_(image, pages, engine, ReaderDepth(channels), checks) {}

  void Run(const WorkPlan& plan, WorkQueue& queue, const ChannelContext& context) {
    for (std::uint64_t started = 0; context.GoOn(); ++started) {
      const auto number = queue.Take();
      if (!number) break;
      if (reader_.active() == kChunksInFlight) SendOldest();
      const WorkChunk chunk = plan.chunk(*number);
      AlignedBuffer& buffer = buffers_[started % kChunksInFlight];
      if (buffer.size() == 0) buffer = AlignedBuffer(kWorkBytes);
      reader_.Start(chunk, buffer.bytes().first(chunk.length().value()));
    }
    while (reader_.active() > 0) SendOldest();
  }

 private:
  void SendOldest() {
    const ChunkReader::Finished finished = reader_.Finish();
    RefuseDamage(image_, finished.damage);
    SendPresentPages(image_.contents().blocks[finished.chunk.block], finished.chunk, finished.target, channel_);
    progress_.Advance(finished.chunk.length());
  }

  const Image& image_;
  PacketSender& channel_;
  Progress& progress_;
  std::vector<AlignedBuffer> buffers_;
  ChunkReader reader_;  // destroyed first: waits for the reads into the buffers
};

void SendFixedOffsets(const Image& image, const std::set<std::string>& zero_blocks, MultifdLink& link,
                      const ReadOptions& options, PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  const WorkPlan plan = PlanWork(image.contents().blocks);
  const FileDescriptor pages = image.OpenForPages(options.cache);
  WorkQueue queue(plan.chunk_count());
  progress.Begin("sending", plan.length());
  link.Begin(image.contents());
  for (const StreamBlock& block : image.contents().blocks) {
    if (!zero_blocks.contains(block.name)) SendAbsentPages(block, link);
  }
  const unsigned channels = link.channel_count();
  RunChannels(channels, interrupt, [&](const ChannelContext& context) {
    ChunkSender(image, pages, options.engine, channels, checks, link.channel(context.channel()), progress)
        .Run(plan, queue, context);
  });
  link.Finish(image.contents().frame, image.device_state());
}

// Takes the pages of a stream and deals them to the channels, in batches.
class PageDealer : public PageSink {
 public:
  PageDealer(const Image& image, MultifdLink& link, PageBatches& batches, const std::set<std::string>& zero_blocks,
             const ChannelContext& context)
      : image_(image), link_(link), batches_(batches), zero_blocks_(zero_blocks), context_(context) {}

  void OnBlocks(const StreamContents& contents) override {
    RefuseChangedBlocks(image_, contents);
    link_.Begin(contents);
    for (const StreamBlock& block : contents.blocks) {
      blocks_.push_back(
          {block.name, zero_blocks_.contains(block.name), PageBitmap(block.pages()), PageBitmap(block.pages())});
    }
  }

  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    WaitForTheOneBefore(block, page);
    blocks_[block].not_zero.Set(page.value());
    PageBatch& batch = BatchOf(block);
    batch.pages.push_back(page);
    return batch.Bytes(batch.pages.size() - 1);
  }

  void OnZeroPage(std::size_t block, PageIndex page) override {
    Block& of = blocks_[block];
    if (of.starts_zero && !of.not_zero.Test(page.value())) return;
    WaitForTheOneBefore(block, page);
    of.not_zero.Clear(page.value());
    link_.SendZero(of.name, page);
  }

  // After the last page.
  void DealRest() {
    if (batch_ != nullptr) batches_.Deal(std::exchange(batch_, nullptr));
    batches_.Close();
  }

  void TellPresentPages(StreamContents& contents) const {
    for (std::size_t i = 0; i < blocks_.size(); ++i) contents.blocks[i].present = blocks_[i].not_zero;
  }

 private:
  struct Block {
    std::string name;
    bool starts_zero;
    PageBitmap not_zero;         // the last that was sent of the page
    PageBitmap sent_since_sync;  // the page, zero or not
  };

  // Channels and main stream overtake each other, up to the next sync point.
  void WaitForTheOneBefore(std::size_t block, PageIndex page) {
    if (blocks_[block].sent_since_sync.Test(page.value())) Synchronise();
    blocks_[block].sent_since_sync.Set(page.value());
  }

  void Synchronise() {
    if (batch_ != nullptr) batches_.Deal(std::exchange(batch_, nullptr));
    if (!batches_.WaitAllSent(context_)) StopQuietly();
    link_.Synchronise();
    for (Block& block : blocks_) block.sent_since_sync = PageBitmap(block.sent_since_sync.pages());
  }

  PageBatch& BatchOf(std::size_t block) {
    if (batch_ != nullptr && (batch_->full() || batch_->block != block)) batches_.Deal(std::exchange(batch_, nullptr));
    if (batch_ == nullptr) {
      batch_ = batches_.TakeEmpty(context_);
      if (batch_ == nullptr) StopQuietly();
      batch_->block = block;
    }
    return *batch_;
  }

  // RunChannels tells of the failure that came first.
  [[noreturn]] static void StopQuietly() {
    throw Error(ErrorKind::kFailed, "cannot send the image", "a channel failed");
  }

  const Image& image_;
  MultifdLink& link_;
  PageBatches& batches_;
  const std::set<std::string>& zero_blocks_;
  const ChannelContext& context_;
  std::vector<Block> blocks_;
  PageBatch* batch_ = nullptr;  // being filled; its last page is read when the next call comes
};

void SendBatches(const StreamContents& contents, PageBatches& batches, PacketSender& channel,
                 const ChannelContext& context) {
  while (PageBatch* const batch = batches.TakeDealt(context)) {
    channel.SetBlock(contents.blocks[batch->block].name);
    for (std::size_t i = 0; i < batch->pages.size(); ++i) channel.Add(batch->pages[i], batch->Bytes(i));
    channel.Send();
    batches.PutBack(batch);
  }
}

StreamContents SendStream(const Image& image, const std::set<std::string>& zero_blocks, MultifdLink& link,
                          const ReadOptions& options, Progress& progress, const Interrupt& interrupt) {
  const std::unique_ptr<PieceSource> source = OpenStream(image, options, "sending", progress, interrupt);
  const unsigned channels = link.channel_count();
  PageBatches batches(kBatchesPerChannel * channels);
  StreamContents contents;
  std::vector<std::byte> device_state;
  const auto deal = [&](const ChannelContext& context) {
    PageDealer dealer(image, link, batches, zero_blocks, context);
    contents = ReadStreamUpToDevices(*source, dealer);
    dealer.DealRest();
    dealer.TellPresentPages(contents);
    device_state = ReadDeviceState(*source);
  };
  RunChannels(channels + 1, interrupt, [&](const ChannelContext& context) {
    if (context.channel() == channels) return deal(context);
    SendBatches(image.contents(), batches, link.channel(context.channel()), context);
  });
  link.Finish(contents.frame, device_state);
  return contents;
}

}  // namespace

StreamContents SendImageOverMultifd(const Image& image, const MultifdTarget& receiver, const ReadOptions& options,
                                    PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  MultifdLink link(receiver.main, receiver.channels, receiver.sync_at);
  if (image.has_fixed_offsets()) {
    SendFixedOffsets(image, receiver.zero_blocks, link, options, checks, progress, interrupt);
    return image.contents();
  }
  return SendStream(image, receiver.zero_blocks, link, options, progress, interrupt);
}

}  // namespace vmsave
