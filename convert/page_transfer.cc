#include "convert/page_transfer.h"

#include <algorithm>
#include <cstring>

#include "io/aligned_buffer.h"
#include "reader/image_stream.h"
#include "writer/page_spreader.h"

namespace vmsave {
namespace {

constexpr const char* kPhase = "converting";
constexpr std::size_t kChunksInFlight = 4;  // per channel
static_assert(kWorkPages <= PageChannel::kMaxPages);

// Gives the pages of a chunk that was read to a channel of a store.
class ChunkGiver {
 public:
  explicit ChunkGiver(std::unique_ptr<PageChannel> channel) : channel_(std::move(channel)) {}

  void Give(const WorkChunk& chunk, const PageBitmap& present, std::span<const std::byte> memory) {
    present_.clear();
    absent_.clear();
    for (std::uint64_t page = chunk.first_page; page < chunk.end_page; ++page) {
      (present.Test(page) ? present_ : absent_).emplace_back(page);
    }
    if (!absent_.empty()) channel_->Zero(chunk.block, absent_);
    if (present_.empty()) return;
    CopyInto(channel_->Place(chunk.block, present_), chunk, memory);
    channel_->Commit();
  }

  void Settle() { channel_->Settle(); }

 private:
  // The pieces hold whole pages, in the order of `present_`, or parts of them.
  void CopyInto(std::span<const iovec> pieces, const WorkChunk& chunk, std::span<const std::byte> memory) const {
    auto page = present_.begin();
    std::size_t in_page = 0;
    for (const iovec& piece : pieces) {
      for (std::size_t done = 0; done < piece.iov_len;) {
        const std::size_t count = std::min(piece.iov_len - done, kPageBytes - in_page);
        const std::byte* const from = memory.data() + (page->value() - chunk.first_page) * kPageBytes + in_page;
        std::memcpy(static_cast<std::byte*>(piece.iov_base) + done, from, count);
        done += count;
        in_page = (in_page + count) % kPageBytes;
        if (in_page == 0) ++page;
      }
    }
  }

  std::unique_ptr<PageChannel> channel_;
  std::vector<PageIndex> present_;
  std::vector<PageIndex> absent_;
};

// One channel's part of an image with fixed offsets.
class ChunkTransfer {
 public:
  ChunkTransfer(const Image& image, const FileDescriptor& pages, PageStore& store, const ReadOptions& options,
                PageChecks checks, Progress& progress)
      : image_(image),
        progress_(progress),
        giver_(store.OpenChannel()),
        reader_(image, pages, options.engine, ReaderDepth(options.channels), checks) {
    for (std::size_t i = 0; i < kChunksInFlight; ++i) buffers_.emplace_back(kWorkBytes);
  }

  void Run(const WorkPlan& plan, WorkQueue& queue, const ChannelContext& context) {
    for (std::uint64_t started = 0; context.GoOn(); ++started) {
      const auto number = queue.Take();
      if (!number) break;
      if (reader_.active() == kChunksInFlight) GiveOldest();
      const WorkChunk chunk = plan.chunk(*number);
      reader_.Start(chunk, buffers_[started % kChunksInFlight].bytes().first(chunk.length().value()));
    }
    while (reader_.active() > 0) GiveOldest();
    giver_.Settle();
  }

 private:
  void GiveOldest() {
    const ChunkReader::Finished finished = reader_.Finish();
    RefuseDamage(image_, finished.damage);
    giver_.Give(finished.chunk, image_.contents().blocks[finished.chunk.block].present, finished.target);
    progress_.Advance(finished.chunk.length());
  }

  const Image& image_;
  Progress& progress_;
  ChunkGiver giver_;
  std::vector<AlignedBuffer> buffers_;
  ChunkReader reader_;  // destroyed first: waits for the reads into the buffers
};

// The chunks of the wanted blocks: the others have none.
WorkPlan PlanTransfer(const Image& image, const BlockFilter& wanted) {
  std::vector<std::uint64_t> pages;
  for (const StreamBlock& block : image.contents().blocks) pages.push_back(wanted(pages.size()) ? block.pages() : 0);
  return WorkPlan(pages);
}

// Passes over the pages of other blocks.
class WantedPages final : public PageSink {
 public:
  WantedPages(const Image& image, PageSink& sink, const BlockFilter& wanted)
      : image_(image), sink_(sink), wanted_(wanted) {}

  void OnBlocks(const StreamContents& contents) override {
    RefuseChangedBlocks(image_, contents);
    sink_.OnBlocks(contents);
  }
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    return wanted_(block) ? sink_.PageTarget(block, page) : std::span<std::byte>();
  }
  void OnZeroPage(std::size_t block, PageIndex page) override {
    if (wanted_(block)) sink_.OnZeroPage(block, page);
  }

 private:
  const Image& image_;
  PageSink& sink_;
  const BlockFilter& wanted_;
};

WriteTotals TransferFixedOffsets(const Image& image, const StoreMaker& make_store, const ReadOptions& options,
                                 PageChecks checks, Progress& progress, const Interrupt& interrupt,
                                 const BlockFilter& wanted) {
  const WorkPlan plan = PlanTransfer(image, wanted);
  const FileDescriptor pages = image.OpenForPages(options.cache);
  const std::unique_ptr<PageStore> store = make_store(image.contents());
  WorkQueue queue(plan.chunk_count());
  progress.Begin(kPhase, plan.length());
  RunChannels(options.channels, interrupt, [&](const ChannelContext& context) {
    ChunkTransfer(image, pages, *store, options, checks, progress).Run(plan, queue, context);
  });
  return store->Complete(image.contents().frame, image.device_state(), progress, interrupt);
}

WriteTotals TransferStream(const Image& image, const StoreMaker& make_store, const ReadOptions& options,
                           Progress& progress, const Interrupt& interrupt, const BlockFilter& wanted) {
  const std::unique_ptr<PieceSource> source = OpenStream(image, options, kPhase, progress, interrupt);
  PageSpreader spreader(options.channels, make_store);
  WantedPages sink(image, spreader, wanted);
  const StreamContents contents = ReadStreamUpToDevices(*source, sink);
  std::vector<std::byte> device_state = ReadDeviceState(*source);
  // What may follow behind the stream is not QEMU's.
  device_state.resize(FindStreamEnd(device_state).value_or(device_state.size()));
  return spreader.Finish()->Complete(contents.frame, device_state, progress, interrupt);
}

}  // namespace

WriteTotals TransferPages(const Image& image, const StoreMaker& make_store, const ReadOptions& options,
                          PageChecks checks, Progress& progress, const Interrupt& interrupt,
                          const BlockFilter& wanted) {
  if (!image.has_fixed_offsets()) return TransferStream(image, make_store, options, progress, interrupt, wanted);
  return TransferFixedOffsets(image, make_store, options, checks, progress, interrupt, wanted);
}

}  // namespace vmsave
