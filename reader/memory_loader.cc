#include "reader/memory_loader.h"

#include <cstring>

#include "io/sparse_file.h"
#include "reader/chunk_reader.h"
#include "reader/image_stream.h"

namespace vmsave {
namespace {

constexpr std::size_t kChunksInFlight = 4;

// Makes bytes [begin, end) of the target zero, and a hole where it held data.
void Clear(const LoadTarget& target, std::uint64_t begin, std::uint64_t end) {
  if (target.backing != nullptr) {
    const FileRange range{target.backing_start + ByteCount{begin}, target.backing_start + ByteCount{end}};
    if (!HoldsData(*target.backing, range) || PunchHole(*target.backing, range)) return;
  }
  std::memset(target.memory.data() + begin, 0, end - begin);
}

void ClearAbsentPages(const WorkChunk& chunk, const PageBitmap& present, const LoadTarget& target) {
  std::uint64_t page = chunk.first_page;
  while (page < chunk.end_page) {
    const auto run = present.NextPresent(page, chunk.end_page);
    const std::uint64_t absent_end = run ? run->first : chunk.end_page;
    if (absent_end > page) Clear(target, page * kPageBytes, absent_end * kPageBytes);
    page = run ? run->first + run->count : chunk.end_page;
  }
}

void LoadFixedOffsets(const Image& image, const std::vector<LoadTarget>& targets, const ReadOptions& options,
                      PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  const WorkPlan plan = PlanWork(image.contents().blocks);
  const FileDescriptor pages = image.OpenForPages(options.cache);
  WorkQueue queue(plan.chunk_count());
  progress.Begin("loading", plan.length());
  RunChannels(options.channels, interrupt, [&](const ChannelContext& context) {
    ChunkReader reader(image, pages, options.engine, ReaderDepth(options.channels), checks);
    const auto finish = [&] {
      const ChunkReader::Finished finished = reader.Finish();
      RefuseDamage(image, finished.damage);
      progress.Advance(finished.chunk.length());
    };
    while (context.GoOn()) {
      const auto number = queue.Take();
      if (!number) break;
      const WorkChunk chunk = plan.chunk(*number);
      const LoadTarget& target = targets[chunk.block];
      ClearAbsentPages(chunk, image.contents().blocks[chunk.block].present, target);
      // Done at once, so that of a sparse guest, too, as many reads are in flight as may be.
      if (!HasPages(image, chunk)) {
        progress.Advance(chunk.length());
        continue;
      }
      if (reader.active() == kChunksInFlight) finish();
      reader.Start(chunk, target.memory.subspan(chunk.first_page * kPageBytes, chunk.length().value()));
    }
    while (reader.active() > 0) finish();
  });
}

// Takes the pages of a stream to their places in cleared memory.
class TargetSink : public PageSink {
 public:
  TargetSink(const Image& image, const std::vector<LoadTarget>& targets) : image_(image), targets_(targets) {}

  void OnBlocks(const StreamContents& contents) override {
    RefuseChangedBlocks(image_, contents);
    for (const StreamBlock& block : contents.blocks) present_.emplace_back(block.pages());
  }

  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    present_[block].Set(page.value());
    return Place(block, page);
  }

  // Only a page that came before needs to be cleared: memory is zero at the start.
  void OnZeroPage(std::size_t block, PageIndex page) override {
    if (!present_[block].Test(page.value())) return;
    present_[block].Clear(page.value());
    std::memset(Place(block, page).data(), 0, kPageBytes);
  }

  std::vector<PageBitmap> TakePresent() { return std::move(present_); }

 private:
  std::span<std::byte> Place(std::size_t block, PageIndex page) const {
    return targets_[block].memory.subspan(PagesToBytes(page).value(), kPageBytes);
  }

  const Image& image_;
  const std::vector<LoadTarget>& targets_;
  std::vector<PageBitmap> present_;
};

LoadedRam LoadStream(const Image& image, const std::vector<LoadTarget>& targets, const ReadOptions& options,
                     Progress& progress, const Interrupt& interrupt) {
  for (const LoadTarget& target : targets) Clear(target, 0, target.memory.size());
  const std::unique_ptr<PieceSource> source = OpenStream(image, options, "loading", progress, interrupt);
  TargetSink sink(image, targets);
  LoadedRam loaded{ReadStreamUpToDevices(*source, sink), {}};
  std::vector<PageBitmap> present = sink.TakePresent();
  for (std::size_t i = 0; i < present.size(); ++i) loaded.contents.blocks[i].present = std::move(present[i]);
  loaded.device_state = ReadDeviceState(*source);
  return loaded;
}

}  // namespace

LoadedRam LoadImage(const Image& image, const std::vector<LoadTarget>& targets, const ReadOptions& options,
                    PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  if (!image.has_fixed_offsets()) return LoadStream(image, targets, options, progress, interrupt);
  LoadFixedOffsets(image, targets, options, checks, progress, interrupt);
  return {image.contents(), {image.device_state().begin(), image.device_state().end()}};
}

}  // namespace vmsave
