#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include "io/aligned_buffer.h"
#include "io/sparse_file.h"
#include "writer/complete_image.h"
#include "writer/image_writer.h"
#include "writer/legacy_stream.h"
#include "writer/ram_scan.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kWriteBytes = 1 << 20;
constexpr std::chrono::milliseconds kAwaitOthersFor{1};  // who look at the last chunks

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

  void Write(const LegacyStream& stream, const FileRange& range) {
    if (free_.empty()) free_.push_back(engine_->Wait());
    const RequestId buffer = free_.back();
    free_.pop_back();
    const std::span<std::byte> bytes = buffers_[buffer].bytes().first((range.end - range.begin).value());
    stream.Make(range.begin, bytes);
    engine_->SubmitWrite(file_.pages(), bytes, range.begin, buffer);
  }

  void Drain() { engine_->Drain(); }

 private:
  const NewFile& file_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<RequestId> free_;
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the writes that still use the buffers
};

// What is known of the stream is written before more of the guest's RAM is looked at, so that the disk has work from
// the first chunk on.
class Version2Writer {
 public:
  Version2Writer(const NewFile& file, const GuestImage& guest, const WriteOptions& options)
      : file_(file),
        guest_(guest),
        options_(options),
        present_(EmptyBitmaps(guest.blocks)),
        stream_(EncodeBeforeStream(guest.description, guest.was_running), guest, present_) {}

  // Returns the file's length.
  ByteCount Write(Progress& progress, const Interrupt& interrupt) {
    progress.Begin("saving", guest_.ram_length());
    const bool is_extended = Extend(stream_.longest());
    WorkQueue queue(stream_.plan().chunk_count());
    RunChannels(options_.channels, interrupt, [&](const ChannelContext& context) {
      ChunkScanner scanner;
      BlockWriter writer(file_, options_.engine, ChannelDepth(options_.channels));
      while (context.GoOn()) {
        const bool is_whole = stream_.known().whole;
        if (const auto piece = TakeKnownPiece()) {
          writer.Write(stream_, *piece);
        } else if (const auto number = queue.Take()) {
          progress.Advance(Settle(*number, scanner));
        } else if (is_whole) {
          break;
        } else {
          std::this_thread::sleep_for(kAwaitOthersFor);
        }
      }
      writer.Drain();
    });
    WriteTail();
    const ByteCount length{stream_.known().end.value()};
    if (is_extended) SetFileLength(file_.buffered(), length);
    return length;
  }

  const std::vector<PageBitmap>& present() const { return present_; }

 private:
  // Beforehand, since direct writes behind the end of a file wait for one another (ext4, XFS). Where there may be no
  // file of that length, it grows as it is written.
  bool Extend(ByteCount length) const {
    try {
      SetFileLength(file_.buffered(), length);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  ByteCount Settle(std::uint64_t number, ChunkScanner& scanner) {
    const WorkChunk chunk = stream_.plan().chunk(number);
    scanner.Scan(guest_.blocks[chunk.block], chunk, present_[chunk.block]);
    stream_.Settle(number);
    return chunk.length();
  }

  // The next that no channel has. The last one may be shorter, but is whole blocks, too.
  std::optional<FileRange> TakeKnownPiece() {
    std::uint64_t begin = taken_.load(std::memory_order_relaxed);
    std::uint64_t end = 0;
    do {
      const LegacyStream::Known known = stream_.known();
      end = std::min(begin + kWriteBytes, RoundDown(known.end.value(), kPageBytes));
      if (end <= begin || (end < begin + kWriteBytes && !known.whole)) return std::nullopt;
    } while (!taken_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    return FileRange{FileOffset{begin}, FileOffset{end}};
  }

  // Shorter than a block: it goes to the buffered descriptor.
  void WriteTail() {
    const std::uint64_t begin = taken_.load(std::memory_order_relaxed);
    std::vector<std::byte> tail(stream_.known().end.value() - begin);
    stream_.Make(FileOffset{begin}, tail);
    WriteAt(file_.buffered(), tail, FileOffset{begin});
  }

  const NewFile& file_;
  const GuestImage& guest_;
  const WriteOptions& options_;
  std::vector<PageBitmap> present_;
  LegacyStream stream_;
  std::atomic<std::uint64_t> taken_{0};  // the file's bytes in front of this are written, or a channel's to write
};

}  // namespace

WriteTotals WriteVersion2(NewFile& file, const GuestImage& guest, const WriteOptions& options, Progress& progress,
                          const Interrupt& interrupt) {
  Version2Writer writer(file, guest, options);
  const ByteCount length = writer.Write(progress, interrupt);
  guest.release();
  CompleteImage(file, progress);
  return CountTotals(writer.present(), length);
}

}  // namespace vmsave
