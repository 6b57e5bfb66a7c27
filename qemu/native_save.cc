// QEMU writes the guest's RAM into the file itself, at fixed offsets.
#include <fcntl.h>
#include <fmt/format.h>

#include "format/multifd_packet.h"
#include "format/page_hash.h"
#include "qemu/descriptor_set.h"
#include "qemu/save_job.h"
#include "reader/file_source.h"
#include "writer/chunk_rehash.h"
#include "writer/complete_image.h"
#include "writer/version3_file.h"

namespace vmsave {
namespace {

// The file once more, as QEMU wants it: for writing only.
FileDescriptor ForWriting(const FileDescriptor& file, int flags) {
  return OpenFile(fmt::format("/proc/self/fd/{}", file.number()), O_WRONLY | flags);
}

// What QEMU has written, read back.
struct WrittenStream {
  StreamContents contents;
  std::vector<std::byte> device_state;
  FileOffset end;
};

WrittenStream ReadBack(const NewFile& file, FileOffset start) {
  const FileOffset end{FileLength(file.buffered()).value()};
  FileSource source(file.buffered(), start, end);
  PassOverPages no_pages;
  StreamContents contents = ReadStreamUpToDevices(source, no_pages);
  return {std::move(contents), ReadDeviceState(source), end};
}

HashedRange HashRange(const NewFile& file, FileOffset begin, FileOffset end) {
  const ByteCount length = end - begin;
  if (length.value() > kMaxDeviceStateBytes) {
    throw Error(ErrorKind::kDamaged, fmt::format("cannot read back {}", file.path()),
                "what QEMU wrote beside the pages is too large");
  }
  std::vector<std::byte> bytes(length.value());
  ReadAt(file.buffered(), bytes, begin);
  return {begin, length, Xxh3(bytes)};
}

// Everything but the pages: up to the end of each bitmap, and behind the last page.
std::vector<HashedRange> HashMetadata(const NewFile& file, FileOffset start, const WrittenStream& stream) {
  std::vector<HashedRange> ranges;
  FileOffset begin = start;
  for (const StreamBlock& block : stream.contents.blocks) {
    ranges.push_back(HashRange(file, begin, block.mapped_ram->bitmap_offset + ByteCount{BitmapBytes(block.pages())}));
    begin = block.mapped_ram->pages_offset + block.length;
  }
  ranges.push_back(HashRange(file, begin, stream.end));
  return ranges;
}

IntegrityTable MakeTable(FileOffset start, const WrittenStream& stream, SaveJob& job) {
  IntegrityTable table;
  table.ranges = HashMetadata(job.file, start, stream);
  for (const StreamBlock& block : stream.contents.blocks) {
    table.blocks.push_back({block.name, block.length, std::nullopt, {}});
    table.blocks.back().chunk_hashes.resize(ChunkCount(block.length));
  }
  std::vector<WrittenBlock> blocks;
  for (std::size_t i = 0; i < table.blocks.size(); ++i) {
    const StreamBlock& block = stream.contents.blocks[i];
    blocks.push_back({block.mapped_ram->pages_offset, &block.present, table.blocks[i].chunk_hashes});
  }
  const auto all = [](std::size_t, std::uint64_t) { return true; };
  HashWrittenChunks(job.file.pages(), blocks, all, job.write, job.progress, job.interrupt);
  return table;
}

void LetQemuWrite(SaveJob& job, FileOffset start) {
  DescriptorSet descriptors(job.qmp, OnFailure::kPutBack);  // outlives the migration, which may open one at any time
  descriptors.Add(ForWriting(job.file.buffered(), 0));
  if (job.file.bypasses_cache()) descriptors.Add(ForWriting(job.file.buffered(), O_DIRECT));
  OutgoingMigration migration(job.qmp, {std::string(kMappedRamCapability), "multifd"}, job.limits, job.stop_guest);
  migration.settings().SetParameter("multifd-channels", std::min(job.write.channels, kMaxMultifdChannels));
  // QEMU's channels sort zero pages out of their packets and write what is left out of order, page by page.
  migration.settings().SetParameterIfKnown("zero-page-detection", "legacy");
  migration.settings().SetParameter("direct-io", job.file.bypasses_cache());
  migration.Start(fmt::format("file:{},offset={}", descriptors.path(), start.value()),
                  fmt::format("QEMU cannot write {}", job.file.path()));
  job.progress.Begin("saving", ByteCount{0});
  migration.Follow(
      [&] {
        job.interrupt.Check();
        return true;
      },
      job.progress);
}

}  // namespace

WriteTotals SaveByQemu(SaveJob& job) {
  Version3Envelope envelope(job.file, job.description, job.was_running);
  LetQemuWrite(job, envelope.stream_start());
  const WrittenStream stream = ReadBack(job.file, envelope.stream_start());
  job.release(stream.device_state);
  std::optional<IntegrityTable> table;
  if (job.write.checksums) table = MakeTable(envelope.stream_start(), stream, job);
  const ByteCount length = envelope.Close(stream.end, table);
  CompleteImage(job.file, job.progress);
  std::vector<PageBitmap> present;
  for (const StreamBlock& block : stream.contents.blocks) present.push_back(block.present);
  return CountTotals(present, length);
}

}  // namespace vmsave
