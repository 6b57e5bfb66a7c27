#include "reader/stream_sender.h"

#include <array>
#include <cstring>

#include "io/aligned_buffer.h"
#include "reader/image_stream.h"

namespace vmsave {
namespace {

constexpr std::size_t kChunksInFlight = 8;

iovec Piece(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};  // iovec has no const; a sink only reads
}

std::vector<std::byte> MakeHead(const StreamContents& contents) {
  ByteWriter head;
  AppendLegacyHead(head, contents.frame, contents.block_shapes());
  return head.Take();
}

std::vector<std::byte> MakeTail(const StreamContents& contents, std::span<const std::byte> device_state) {
  ByteWriter tail;
  AppendLegacyTail(tail, contents.frame, device_state);
  return tail.Take();
}

// One chunk's records, gathered from heads made here and pages where they lie. Reused from chunk to chunk.
class RecordBatch {
 public:
  RecordBatch() {
    heads_.reserve(kWorkPages);
    pieces_.reserve(2 * kWorkPages);
  }

  // `memory` holds the chunk's pages in their places.
  void Send(const StreamBlock& block, const WorkChunk& chunk, std::span<const std::byte> memory, ByteSink& sink) {
    static constexpr std::byte kZeroFill{0};
    heads_.clear();
    pieces_.clear();
    for (std::uint64_t page = chunk.first_page; page < chunk.end_page; ++page) {
      const bool present = block.present.Test(page);
      heads_.push_back(MakeRecordHead(block.name, PageIndex{page}, present, page != 0));
      pieces_.push_back(Piece(heads_.back().bytes()));
      const std::uint64_t at = (page - chunk.first_page) * kPageBytes;
      pieces_.push_back(Piece(present ? memory.subspan(at, kPageBytes) : std::span(&kZeroFill, 1)));
    }
    sink.Write(pieces_);
  }

 private:
  std::vector<RecordHead> heads_;
  std::vector<iovec> pieces_;
};

void SendAsItIs(const Image& image, ByteSink& sink, const ReadOptions& options, Progress& progress,
                const Interrupt& interrupt) {
  const std::unique_ptr<PieceSource> source = OpenStream(image, options, "sending", progress, interrupt);
  for (auto piece = source->TakePiece(); !piece.empty(); piece = source->TakePiece()) sink.Write(piece);
}

void SendFixedOffsets(const Image& image, ByteSink& sink, const ReadOptions& options, PageChecks checks,
                      Progress& progress, const Interrupt& interrupt) {
  const WorkPlan plan = PlanWork(image.contents().blocks);
  const FileDescriptor pages = image.OpenForPages(options.cache);
  std::vector<AlignedBuffer> buffers;
  for (std::size_t i = 0; i < kChunksInFlight; ++i) buffers.emplace_back(kWorkBytes);
  ChunkReader reader(image, pages, options.engine, ReaderDepth(1), checks);
  RecordBatch batch;
  const auto send_oldest = [&] {
    const ChunkReader::Finished finished = reader.Finish();
    RefuseDamage(image, finished.damage);
    batch.Send(image.contents().blocks[finished.chunk.block], finished.chunk, finished.target, sink);
    progress.Advance(finished.chunk.length());
  };
  progress.Begin("sending", plan.length());
  sink.Write(MakeHead(image.contents()));
  for (std::uint64_t number = 0; number < plan.chunk_count(); ++number) {
    interrupt.Check();
    if (reader.active() == kChunksInFlight) send_oldest();
    const WorkChunk chunk = plan.chunk(number);
    reader.Start(chunk, buffers[number % kChunksInFlight].bytes().first(chunk.length().value()));
  }
  while (reader.active() > 0) send_oldest();
  sink.Write(MakeTail(image.contents(), image.device_state()));
}

}  // namespace

void ByteSink::Write(std::span<const std::byte> bytes) {
  const iovec piece = Piece(bytes);
  Write(std::span(&piece, 1));
}

void SendImage(const Image& image, ByteSink& sink, const ReadOptions& options, PageChecks checks, Progress& progress,
               const Interrupt& interrupt) {
  if (image.has_fixed_offsets()) {
    SendFixedOffsets(image, sink, options, checks, progress, interrupt);
  } else {
    SendAsItIs(image, sink, options, progress, interrupt);
  }
}

void SendFromMemory(const StreamContents& contents, const std::vector<BlockMemory>& memory,
                    std::span<const std::byte> device_state, ByteSink& sink) {
  sink.Write(MakeHead(contents));
  RecordBatch batch;
  for (std::size_t block = 0; block < contents.blocks.size(); ++block) {
    const std::uint64_t pages = memory[block].size() / kPageBytes;
    for (std::uint64_t first = 0; first < pages; first += kWorkPages) {
      const WorkChunk chunk{block, first, std::min(first + kWorkPages, pages)};
      batch.Send(contents.blocks[block], chunk, memory[block].subspan(first * kPageBytes, chunk.length().value()),
                 sink);
    }
  }
  sink.Write(MakeTail(contents, device_state));
}

}  // namespace vmsave
