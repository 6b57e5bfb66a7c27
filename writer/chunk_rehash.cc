#include "writer/chunk_rehash.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <memory>

#include "format/integrity_table.h"
#include "format/page_hash.h"
#include "format/work_plan.h"
#include "io/aligned_buffer.h"

namespace vmsave {
namespace {

// The pages of the wanted chunks; neighbouring chunks are one run, so that they are read as one.
std::vector<PageRun> WantedPages(const WorkChunk& work, const ChunkFilter& wanted) {
  std::vector<PageRun> runs;
  for (std::uint64_t first = work.first_page; first < work.end_page; first += kPagesPerChunk) {
    if (!wanted(work.block, first / kPagesPerChunk)) continue;
    const std::uint64_t count = std::min(kPagesPerChunk, work.end_page - first);
    if (runs.empty() || runs.back().first + runs.back().count != first) runs.push_back({first, 0});
    runs.back().count += count;
  }
  return runs;
}

// Calls take(run) for each run of present pages in [first, end).
template <class Take>
void ForEachPresent(const PageBitmap& present, std::uint64_t first, std::uint64_t end, const Take& take) {
  for (auto run = present.NextPresent(first, end); run; run = present.NextPresent(run->first + run->count, end)) {
    take(*run);
  }
}

// One channel's: several pieces of work are read while the first of them is hashed.
class Rehash {
 public:
  Rehash(const FileDescriptor& pages, const std::vector<WrittenBlock>& blocks, std::unique_ptr<IoEngine> engine)
      : pages_(pages), blocks_(blocks), engine_(std::move(engine)) {
    for (unsigned i = 0; i < engine_->depth(); ++i) free_.emplace_back(kWorkBytes);
  }

  bool full() const { return free_.empty(); }
  bool idle() const { return active_.empty(); }

  // REQUIRES: not full().
  void Start(const WorkChunk& work, std::vector<PageRun> wanted) {
    active_.push_back(std::make_unique<Active>(Active{work, std::move(wanted), std::move(free_.back())}));
    free_.pop_back();
    Active& active = *active_.back();
    for (const PageRun& range : active.wanted) {
      ForEachPresent(Present(active), range.first, range.first + range.count,
                     [&](const PageRun& run) { Read(active, run); });
    }
  }

  // Hashes the work that was started first. Returns how much was read for it. REQUIRES: not idle().
  ByteCount Finish() {
    // Where one of its reads fails, the others still go into its buffer, which must not be freed before the engine.
    while (active_.front()->outstanding > 0) WaitForOne();
    const std::unique_ptr<Active> active = std::move(active_.front());
    active_.pop_front();
    ByteCount hashed;
    for (const PageRun& range : active->wanted) {
      const std::uint64_t end = range.first + range.count;
      for (std::uint64_t first = range.first; first < end; first += kPagesPerChunk) {
        hashed += Hash(*active, first, std::min(first + kPagesPerChunk, end));
      }
    }
    free_.push_back(std::move(active->buffer));
    return hashed;
  }

 private:
  struct Active {
    WorkChunk work;
    std::vector<PageRun> wanted;
    AlignedBuffer buffer;
    std::size_t outstanding = 0;

    std::span<std::byte> Place(const PageRun& run) {
      return buffer.bytes().subspan((run.first - work.first_page) * kPageBytes, run.count * kPageBytes);
    }
  };

  const PageBitmap& Present(const Active& active) const { return *blocks_[active.work.block].present; }

  void Read(Active& active, const PageRun& run) {
    if (engine_->full()) WaitForOne();
    const FileOffset offset = blocks_[active.work.block].pages_offset + PagesToBytes(PageIndex{run.first});
    engine_->SubmitRead(pages_, active.Place(run), offset, std::bit_cast<RequestId>(&active));
    ++active.outstanding;
  }

  void WaitForOne() { --std::bit_cast<Active*>(engine_->Wait())->outstanding; }

  ByteCount Hash(Active& active, std::uint64_t first, std::uint64_t end) {
    ByteCount hashed;
    ForEachPresent(Present(active), first, end, [&](const PageRun& run) {
      hash_.Update(active.Place(run));
      hashed += PagesToBytes(PageIndex{run.count});
    });
    blocks_[active.work.block].chunk_hashes[first / kPagesPerChunk] = hashed == ByteCount{0} ? 0 : hash_.Finish();
    return hashed;
  }

  const FileDescriptor& pages_;
  const std::vector<WrittenBlock>& blocks_;
  Xxh3Stream hash_;
  std::vector<AlignedBuffer> free_;
  std::deque<std::unique_ptr<Active>> active_;
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the reads into the buffers
};

ByteCount CountWanted(const WorkPlan& plan, const std::vector<WrittenBlock>& blocks, const ChunkFilter& wanted) {
  std::uint64_t pages = 0;
  for (std::uint64_t number = 0; number < plan.chunk_count(); ++number) {
    const WorkChunk work = plan.chunk(number);
    for (const PageRun& range : WantedPages(work, wanted)) {
      pages += blocks[work.block].present->CountSet(range.first, range.first + range.count);
    }
  }
  return PagesToBytes(PageIndex{pages});
}

}  // namespace

void HashWrittenChunks(const FileDescriptor& pages, const std::vector<WrittenBlock>& blocks, const ChunkFilter& wanted,
                       const WriteOptions& options, Progress& progress, const Interrupt& interrupt) {
  const WorkPlan plan = PlanWork(blocks);
  const ByteCount to_read = CountWanted(plan, blocks, wanted);
  if (to_read != ByteCount{0}) progress.Begin("reading back for checksums", to_read);
  WorkQueue queue(plan.chunk_count());
  RunChannels(options.channels, interrupt, [&](const ChannelContext& context) {
    Rehash rehash(pages, blocks, MakeEngine(options.engine, ChannelDepth(options.channels)));
    while (context.GoOn()) {
      const auto number = queue.Take();
      if (!number) break;
      const WorkChunk work = plan.chunk(*number);
      std::vector<PageRun> runs = WantedPages(work, wanted);
      if (runs.empty()) continue;
      if (rehash.full()) progress.Advance(rehash.Finish());
      rehash.Start(work, std::move(runs));
    }
    while (!rehash.idle()) progress.Advance(rehash.Finish());
  });
}

}  // namespace vmsave
