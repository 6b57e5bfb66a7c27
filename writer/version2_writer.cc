#include <algorithm>

#include "io/aligned_buffer.h"
#include "writer/complete_image.h"
#include "writer/image_writer.h"
#include "writer/legacy_stream.h"
#include "writer/ram_scan.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kWriteBytes = 1 << 20;

std::vector<PageBitmap> FindPresentPages(const GuestImage& guest, unsigned channels, Progress& progress,
                                         const Interrupt& interrupt) {
  const WorkPlan plan = PlanWork(guest.blocks);
  std::vector<PageBitmap> present = EmptyBitmaps(guest.blocks);
  WorkQueue queue(plan.chunk_count());
  progress.Begin("looking for zero pages", guest.ram_length());
  RunChannels(channels, interrupt, [&](const ChannelContext& context) {
    ChunkScanner scanner;
    while (context.GoOn()) {
      const auto number = queue.Take();
      if (!number) break;
      const WorkChunk chunk = plan.chunk(*number);
      scanner.Scan(guest.blocks[chunk.block], chunk, present[chunk.block]);
      progress.Advance(chunk.length());
    }
  });
  return present;
}

// One channel's buffers: a buffer is free again when its write has completed.
class BlockWriter {
 public:
  BlockWriter(const NewFile& file, EngineKind engine, unsigned depth)
      : file_(file), engine_(MakeEngine(engine, depth)) {
    for (unsigned i = 0; i < depth; ++i) {
      buffers_.emplace_back(kWriteBytes);
      free_.push_back(i);
    }
  }

  void Write(const LegacyStream& stream, FileOffset offset, std::size_t length) {
    if (free_.empty()) free_.push_back(engine_->Wait());
    const RequestId buffer = free_.back();
    free_.pop_back();
    const std::span<std::byte> bytes = buffers_[buffer].bytes().first(length);
    stream.Make(offset, bytes);
    engine_->SubmitWrite(file_.pages(), bytes, offset, buffer);
  }

  void Drain() { engine_->Drain(); }

 private:
  const NewFile& file_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<RequestId> free_;
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the writes that still use the buffers
};

// Whole blocks go to the descriptor for pages; the rest, shorter than a block, to the buffered one.
void WriteStream(const NewFile& file, const LegacyStream& stream, const WriteOptions& options, Progress& progress,
                 const Interrupt& interrupt) {
  const std::uint64_t whole = RoundDown(stream.length().value(), kPageBytes);
  const std::uint64_t pieces = (whole + kWriteBytes - 1) / kWriteBytes;
  WorkQueue queue(pieces);
  progress.Begin("saving", stream.length());
  RunChannels(options.channels, interrupt, [&](const ChannelContext& context) {
    BlockWriter writer(file, options.engine, ChannelDepth(options.channels));
    while (context.GoOn()) {
      const auto piece = queue.Take();
      if (!piece) break;
      const std::uint64_t from = *piece * kWriteBytes;
      const std::uint64_t length = std::min(kWriteBytes, whole - from);
      writer.Write(stream, FileOffset{from}, length);
      progress.Advance(ByteCount{length});
    }
    writer.Drain();
  });
  std::vector<std::byte> tail(stream.length().value() - whole);
  stream.Make(FileOffset{whole}, tail);
  WriteAt(file.buffered(), tail, FileOffset{whole});
  progress.Advance(ByteCount{tail.size()});
}

}  // namespace

WriteTotals WriteVersion2(NewFile& file, const GuestImage& guest, const WriteOptions& options, Progress& progress,
                          const Interrupt& interrupt) {
  const std::vector<PageBitmap> present = FindPresentPages(guest, options.channels, progress, interrupt);
  const LegacyStream stream(EncodeBeforeStream(guest.description, guest.was_running), guest, present);
  WriteStream(file, stream, options, progress, interrupt);
  guest.release();
  CompleteImage(file, progress);
  return CountTotals(present, stream.length());
}

}  // namespace vmsave
