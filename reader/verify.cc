#include "reader/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "format/bytes.h"
#include "format/page_hash.h"
#include "io/aligned_buffer.h"
#include "reader/chunk_reader.h"
#include "reader/stream_pages.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMaxVmDescriptionBytes = 16 << 20;
constexpr std::size_t kChunksInFlight = 2;

[[noreturn]] void ThrowDamaged(const Image& image, std::string_view what) {
  throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", image.path()), what, "restore from another copy");
}

std::vector<std::byte> ReadRange(const Image& image, FileOffset offset, ByteCount length) {
  if (offset + length > FileOffset{image.file_length().value()})
    ThrowDamaged(image, "a range in its integrity table lies behind its end");
  std::vector<std::byte> bytes(length.value());
  ReadAt(image.file(), bytes, offset);
  return bytes;
}

void VerifyHeader(const Image& image) {
  const std::vector<std::byte> bytes = ReadRange(image, FileOffset{0}, image.stream_start() - FileOffset{0});
  if (HashBeforeStream(bytes) != image.header()->extension->header_hash) {
    ThrowDamaged(image,
                 fmt::format("header or description (bytes 0-{} of the file): wrong checksum", bytes.size() - 1));
  }
}

void VerifyRanges(const Image& image) {
  for (const HashedRange& range : image.integrity()->ranges) {
    if (Xxh3(ReadRange(image, range.offset, range.length)) != range.hash) {
      ThrowDamaged(image,
                   fmt::format("block list, page bitmap or device state (bytes {}-{} of the file): wrong checksum",
                               range.offset.value(), (range.offset + range.length).value() - 1));
    }
  }
}

// QEMU ends a stream with its VMDESCRIPTION; one cut short has none at its end.
void VerifyStreamEnd(const Image& image) {
  const FileOffset end = image.stream_end();
  const std::uint64_t length = std::min((end - image.stream_start()).value(), kMaxVmDescriptionBytes);
  const std::vector<std::byte> tail = ReadRange(image, FileOffset{end.value() - length}, ByteCount{length});
  constexpr std::size_t kPrefix = 6;
  for (std::size_t at = 0; at + kPrefix < tail.size(); ++at) {
    if (tail[at] == std::byte{0} && tail[at + 1] == static_cast<std::byte>(SectionType::kVmDescription) &&
        GetBigEndian<std::uint32_t>(std::span(tail).subspan(at + 2)) == tail.size() - at - kPrefix) {
      return;
    }
  }
  throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", image.path()),
              "it is truncated: QEMU's stream in it has no end",
              "restore from another copy; if the guest ran with suppress-vmdesc=on, use --verify off");
}

class ParallelVerify {
 public:
  ParallelVerify(const Image& image, const ReadOptions& options)
      : image_(image), options_(options), plan_(PlanWork(image)) {}

  std::vector<DamagedPages> Run(Progress& progress, const Interrupt& interrupt) {
    progress.Begin("verifying", plan_.length());
    const FileDescriptor pages = image_.OpenForPages(options_.cache);
    WorkQueue queue(plan_.chunk_count());
    RunChannels(options_.channels, interrupt, [&](const ChannelContext& context) {
      std::vector<AlignedBuffer> buffers;
      for (std::size_t i = 0; i < kChunksInFlight; ++i) buffers.emplace_back(kWorkBytes);
      ChunkReader reader(image_, pages, options_.engine, ReaderDepth(options_.channels), PageChecks::kOn);
      for (std::size_t started = 0; context.GoOn(); ++started) {
        const auto number = queue.Take();
        if (!number) break;
        if (reader.active() == kChunksInFlight) Finish(reader, progress);
        const WorkChunk chunk = plan_.chunk(*number);
        reader.Start(chunk, buffers[started % kChunksInFlight].bytes().first(chunk.length().value()));
      }
      while (reader.active() > 0) Finish(reader, progress);
    });
    std::ranges::sort(damage_, {},
                      [](const DamagedPages& damage) { return std::pair(damage.block, damage.pages.first); });
    return damage_;
  }

 private:
  void Finish(ChunkReader& reader, Progress& progress) {
    const ChunkReader::Finished finished = reader.Finish();
    progress.Advance(finished.chunk.length());
    if (finished.damage.empty()) return;
    const std::lock_guard lock(mutex_);
    damage_.insert(damage_.end(), finished.damage.begin(), finished.damage.end());
  }

  const Image& image_;
  const ReadOptions& options_;
  WorkPlan plan_;
  std::mutex mutex_;
  std::vector<DamagedPages> damage_;
};

}  // namespace

void VerifyMetadata(const Image& image) {
  if (image.kind() == ImageKind::kCompressed) return;
  if (image.kind() == ImageKind::kVersion3) VerifyHeader(image);
  if (image.integrity()) VerifyRanges(image);
  // Version 3's header says where its stream ends; any other's must show its end.
  if (image.kind() != ImageKind::kVersion3) VerifyStreamEnd(image);
}

VerifyReport Verify(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt) {
  image.RefuseCompressed();
  VerifyReport report;
  report.has_checksums = image.integrity().has_value();
  try {
    VerifyMetadata(image);
    if (!image.has_fixed_offsets() && image.kind() != ImageKind::kCompressed) {
      // A sequential stream has no checksums: its structure is all there is to look at.
      FindStreamPages(image, options, progress, interrupt);
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kDamaged) throw;
    report.damage.emplace_back(error.what());
    return report;
  }
  if (!report.has_checksums) return report;
  for (const DamagedPages& damage : ParallelVerify(image, options).Run(progress, interrupt)) {
    report.damage.push_back(Describe(image, damage) + ": wrong checksum");
  }
  for (const StreamBlock& block : image.contents().blocks)
    report.checked += PagesToBytes(PageIndex{block.present.CountSet()});
  return report;
}

}  // namespace vmsave
