#include <algorithm>

#include "format/page_hash.h"
#include "writer/complete_image.h"
#include "writer/fixed_offset_file.h"
#include "writer/image_writer.h"
#include "writer/ram_scan.h"

namespace vmsave {
namespace {

FixedOffsetGuest Describe(const GuestImage& guest) {
  FixedOffsetGuest described{guest.frame, guest.description, guest.was_running, {}};
  for (const RamBlock& block : guest.blocks) {
    described.blocks.push_back({block.name, block.length(), block.address, {}});
  }
  return described;
}

// Writes the pages straight from the guest's memory.
class Version3Writer {
 public:
  Version3Writer(FixedOffsetFile& file, const GuestImage& guest, const WriteOptions& options)
      : file_(file), guest_(guest), options_(options), plan_(PlanWork(guest.blocks)) {}

  void WritePages(Progress& progress, const Interrupt& interrupt) {
    progress.Begin("saving", guest_.ram_length());
    WorkQueue queue(plan_.chunk_count());
    const unsigned depth = ChannelDepth(options_.channels);
    RunChannels(options_.channels, interrupt, [&](const ChannelContext& context) {
      const auto engine = MakeEngine(options_.engine, depth);
      Xxh3Stream hash;
      ChunkScanner scanner;
      while (context.GoOn()) {
        const auto number = queue.Take();
        if (!number) break;
        const WorkChunk chunk = plan_.chunk(*number);
        SaveChunk(chunk, *engine, scanner, hash, context);
        progress.Advance(chunk.length());
      }
      engine->Drain();
    });
  }

 private:
  // Scan, hash while the pages are in the cache, and write the runs of present pages without copying them.
  void SaveChunk(const WorkChunk& chunk, IoEngine& engine, ChunkScanner& scanner, Xxh3Stream& hash,
                 const ChannelContext& context) {
    const RamBlock& block = guest_.blocks[chunk.block];
    PageBitmap& present = file_.present()[chunk.block];
    scanner.Scan(block, chunk, present);
    if (file_.has_checksums()) HashChunk(chunk, hash);
    auto run = present.NextPresent(chunk.first_page, chunk.end_page);
    for (; run; run = present.NextPresent(run->first + run->count, chunk.end_page)) {
      // A chunk may take hundreds of writes: on a slow disk the operator does not wait for all of them.
      if (engine.full() && !context.GoOn()) return;
      if (engine.full()) engine.Wait();
      engine.SubmitWrite(file_.places().file(), block.memory.subspan(run->first * kPageBytes, run->count * kPageBytes),
                         file_.places().Of(chunk.block, PageIndex{run->first}));
    }
  }

  void HashChunk(const WorkChunk& chunk, Xxh3Stream& hash) {
    const RamBlock& block = guest_.blocks[chunk.block];
    const PageBitmap& present = file_.present()[chunk.block];
    for (std::uint64_t first = chunk.first_page; first < chunk.end_page; first += kPagesPerChunk) {
      const std::uint64_t end = std::min(first + kPagesPerChunk, chunk.end_page);
      auto run = present.NextPresent(first, end);
      if (!run) continue;
      for (; run; run = present.NextPresent(run->first + run->count, end)) {
        hash.Update(block.memory.subspan(run->first * kPageBytes, run->count * kPageBytes));
      }
      file_.chunk_hashes(chunk.block)[first / kPagesPerChunk] = hash.Finish();
    }
  }

  FixedOffsetFile& file_;
  const GuestImage& guest_;
  const WriteOptions& options_;
  WorkPlan plan_;
};

}  // namespace

WriteTotals WriteVersion3(NewFile& file, const GuestImage& guest, const WriteOptions& options, Progress& progress,
                          const Interrupt& interrupt) {
  FixedOffsetFile image(file, Describe(guest), Version3Kind(options.checksums));
  Version3Writer(image, guest, options).WritePages(progress, interrupt);
  guest.release();
  const ByteCount length = image.Finish(guest.frame, guest.device_state);
  CompleteImage(file, progress);
  return CountTotals(image.present(), length);
}

}  // namespace vmsave
