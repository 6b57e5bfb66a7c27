#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "format/integrity_table.h"
#include "format/mapped_ram.h"
#include "format/page_hash.h"
#include "format/save_header.h"
#include "writer/complete_image.h"
#include "writer/image_writer.h"
#include "writer/ram_scan.h"

namespace vmsave {
namespace {

SaveHeader MakeHeader(const GuestImage& guest, std::size_t description_bytes) {
  SaveHeader header;
  header.version = 3;
  header.data_length = static_cast<std::uint32_t>(description_bytes);
  header.was_running = guest.was_running;
  header.format = BodyFormat::kSparse;
  header.extension.emplace();
  return header;
}

FixedOffsetLayout LayOut(const GuestImage& guest, FileOffset stream_start) {
  std::vector<BlockShape> shapes;
  for (const RamBlock& block : guest.blocks) shapes.push_back({block.name, block.length()});
  return LayOutFixedOffsets(stream_start, guest.frame, shapes);
}

// The file at its full length before the pages come, so that no channel's write has to extend it.
void SetLength(const FileDescriptor& file, FileOffset length) {
  if (::ftruncate(file.number(), static_cast<off_t>(length.value())) != 0) {
    throw Error::FromErrno(std::string("cannot extend ") + file.name(), errno);
  }
}

class Version3Writer {
 public:
  Version3Writer(NewFile& file, const GuestImage& guest, const WriteOptions& options)
      : file_(file),
        guest_(guest),
        options_(options),
        description_(EncodeDescription(guest.description)),
        header_(MakeHeader(guest, description_.size())),
        layout_(LayOut(guest, header_.stream_start())),
        plan_(PlanWork(guest.blocks)),
        present_(EmptyBitmaps(guest.blocks)) {
    for (const RamBlock& block : guest.blocks) {
      table_.blocks.push_back({block.name, block.length(), block.address, {}});
      if (options.checksums) table_.blocks.back().chunk_hashes.resize(ChunkCount(block.length()));
    }
  }

  WriteTotals Write(Progress& progress, const Interrupt& interrupt) {
    WriteHeader();
    const FileOffset stream_end = layout_.device_state_offset + ByteCount{guest_.device_state.size()};
    SetLength(file_.buffered(), stream_end);
    WritePages(progress, interrupt);
    WriteMetadata();
    const FileOffset end = FinishHeader(stream_end);
    CompleteImage(file_);
    return CountTotals(guest_, present_, end - FileOffset{0});
  }

 private:
  void WriteHeader() {
    WriteAt(file_.buffered(), EncodeSaveHeader(header_), FileOffset{0});
    WriteAt(file_.buffered(), description_, FileOffset{kSaveHeaderBytes});
  }

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

  // Scan, hash while the pages are in the cache, and write the runs of present pages without copying them.
  void SaveChunk(const WorkChunk& chunk, IoEngine& engine, ChunkScanner& scanner, Xxh3Stream& hash,
                 const ChannelContext& context) {
    const RamBlock& block = guest_.blocks[chunk.block];
    PageBitmap& present = present_[chunk.block];
    scanner.Scan(block, chunk, present);
    if (options_.checksums) HashChunk(chunk, hash);
    auto run = present.NextPresent(chunk.first_page, chunk.end_page);
    for (; run; run = present.NextPresent(run->first + run->count, chunk.end_page)) {
      // A chunk may take hundreds of writes: on a slow disk the operator does not wait for all of them.
      if (engine.full() && !context.GoOn()) return;
      if (engine.full()) engine.Wait();
      const FileOffset offset = layout_.blocks[chunk.block].pages_offset + PagesToBytes(PageIndex{run->first});
      engine.SubmitWrite(file_.pages(), block.memory.subspan(run->first * kPageBytes, run->count * kPageBytes), offset);
    }
  }

  void HashChunk(const WorkChunk& chunk, Xxh3Stream& hash) {
    const RamBlock& block = guest_.blocks[chunk.block];
    for (std::uint64_t first = chunk.first_page; first < chunk.end_page; first += kPagesPerChunk) {
      const std::uint64_t end = std::min(first + kPagesPerChunk, chunk.end_page);
      auto run = present_[chunk.block].NextPresent(first, end);
      if (!run) continue;
      for (; run; run = present_[chunk.block].NextPresent(run->first + run->count, end)) {
        hash.Update(block.memory.subspan(run->first * kPageBytes, run->count * kPageBytes));
      }
      table_.blocks[chunk.block].chunk_hashes[first / kPagesPerChunk] = hash.Finish();
    }
  }

  // The stream's parts, each with the bitmap behind it, and the device state behind the last.
  void WriteMetadata() {
    for (std::size_t i = 0; i < layout_.stream_parts.size(); ++i) {
      PlacedBytes& part = layout_.stream_parts[i];
      const bool last = i == layout_.blocks.size();
      if (last) {
        part.bytes.insert(part.bytes.end(), guest_.device_state.begin(), guest_.device_state.end());
      } else {
        const std::vector<std::byte> bitmap = present_[i].Encode();
        part.bytes.insert(part.bytes.end(), bitmap.begin(), bitmap.end());
      }
      WriteAt(file_.buffered(), part.bytes, part.offset);
      table_.ranges.push_back({part.offset, ByteCount{part.bytes.size()}, Xxh3(part.bytes)});
    }
  }

  // Returns where the file ends.
  FileOffset FinishHeader(FileOffset stream_end) {
    HeaderExtension& extension = *header_.extension;
    extension.stream_end = stream_end;
    FileOffset end = stream_end;
    if (options_.checksums) {
      const std::vector<std::byte> table = EncodeIntegrityTable(table_);
      extension.integrity_offset = FileOffset{RoundUp(stream_end.value(), kIntegrityAlignment)};
      extension.integrity_length = ByteCount{table.size()};
      WriteAt(file_.buffered(), table, extension.integrity_offset);
      end = extension.integrity_offset + extension.integrity_length;
    }
    const auto unhashed = EncodeSaveHeader(header_);
    std::vector<std::byte> before_stream(unhashed.begin(), unhashed.end());
    before_stream.insert(before_stream.end(), description_.begin(), description_.end());
    extension.header_hash = HashBeforeStream(before_stream);
    WriteAt(file_.buffered(), EncodeSaveHeader(header_), FileOffset{0});
    return end;
  }

  NewFile& file_;
  const GuestImage& guest_;
  const WriteOptions& options_;
  std::vector<std::byte> description_;
  SaveHeader header_;
  FixedOffsetLayout layout_;
  WorkPlan plan_;
  std::vector<PageBitmap> present_;
  IntegrityTable table_;
};

}  // namespace

WriteTotals WriteVersion3(NewFile& file, const GuestImage& guest, const WriteOptions& options, Progress& progress,
                          const Interrupt& interrupt) {
  return Version3Writer(file, guest, options).Write(progress, interrupt);
}

}  // namespace vmsave
