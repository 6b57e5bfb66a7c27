#include "reader/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "format/bytes.h"
#include "io/aligned_buffer.h"
#include "reader/chunk_reader.h"
#include "reader/metadata_damage.h"
#include "reader/stream_pages.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMaxVmDescriptionBytes = 16 << 20;
constexpr std::size_t kChunksInFlight = 4;

[[noreturn]] void ThrowDamaged(const Image& image, std::string_view what) {
  throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", image.path()), what, "restore from another copy");
}

// The footer of a section, then EOF: how a stream ends whose QEMU was told to leave VMDESCRIPTION out.
bool EndsWithSection(std::span<const std::byte> tail) {
  constexpr std::size_t kFooterAndEof = 6;
  constexpr std::uint32_t kMostSections = 1 << 16;
  if (tail.size() < kFooterAndEof) return false;
  const std::span<const std::byte> end = tail.last(kFooterAndEof);
  return end[0] == static_cast<std::byte>(SectionType::kFooter) &&
         GetBigEndian<std::uint32_t>(end.subspan(1)) < kMostSections &&
         end[5] == static_cast<std::byte>(SectionType::kEof);
}

// QEMU ends a stream with its VMDESCRIPTION; one cut short has none at its end.
Damage FindMissingEnd(std::span<const std::byte> tail) {
  if (FindStreamEnd(tail) == tail.size()) return std::nullopt;
  std::string damage = "it is truncated: QEMU's stream in it has no end";
  if (EndsWithSection(tail)) damage += "; if the guest ran with suppress-vmdesc=on, use vmrestore --verify off";
  return damage;
}

Damage FindMissingEnd(const Image& image) {
  const FileOffset end = image.stream_end();
  const std::uint64_t length = std::min((end - image.stream_start()).value(), kMaxVmDescriptionBytes);
  std::vector<std::byte> tail(length);
  ReadAt(image.file(), tail, FileOffset{end.value() - length});
  return FindMissingEnd(tail);
}

// Pages next to each other that are wrong for the same reason.
struct DamagedPlace {
  DamagedPages where;
  std::string why;

  bool IsContinuedBy(const DamagedPlace& other) const {
    return where.block == other.where.block && where.pages.first + where.pages.count == other.where.pages.first &&
           why == other.why;
  }
};

std::vector<DamagedPlace> Joined(std::vector<DamagedPlace> places) {
  std::ranges::sort(places, {},
                    [](const DamagedPlace& place) { return std::pair(place.where.block, place.where.pages.first); });
  std::vector<DamagedPlace> joined;
  for (DamagedPlace& place : places) {
    if (!joined.empty() && joined.back().IsContinuedBy(place)) {
      joined.back().where.pages.count += place.where.pages.count;
    } else {
      joined.push_back(std::move(place));
    }
  }
  return joined;
}

class ParallelVerify {
 public:
  ParallelVerify(const Image& image, const ReadOptions& options)
      : image_(image), options_(options), plan_(PlanWork(image.contents().blocks)) {}

  std::vector<DamagedPlace> Run(Progress& progress, const Interrupt& interrupt) {
    progress.Begin("verifying", plan_.length());
    const FileDescriptor pages = image_.OpenForPages(options_.cache);
    WorkQueue queue(plan_.chunk_count());
    RunChannels(options_.channels, interrupt, [&](const ChannelContext& context) {
      Channel channel(*this, pages, progress);
      while (context.GoOn()) {
        const auto number = queue.Take();
        if (!number) break;
        channel.Verify(plan_.chunk(*number));
      }
      channel.Finish();
    });
    return Joined(std::move(places_));
  }

 private:
  // One thread's: some chunks in flight, until one cannot be read.
  class Channel {
   public:
    Channel(ParallelVerify& owner, const FileDescriptor& pages, Progress& progress)
        : owner_(owner), pages_(pages), progress_(progress) {
      for (std::size_t i = 0; i < kChunksInFlight; ++i) buffers_.emplace_back(kWorkBytes);
    }

    void Verify(const WorkChunk& chunk) {
      if (!HasPages(owner_.image_, chunk)) return progress_.Advance(chunk.length());
      if (in_flight_.size() == kChunksInFlight) FinishOne();
      in_flight_.push_back(chunk);
      Try([&] {
        if (!reader_)
          reader_.emplace(owner_.image_, pages_, owner_.options_.engine, ReaderDepth(owner_.options_.channels),
                          PageChecks::kOn);
        reader_->Start(chunk, buffers_[started_++ % kChunksInFlight].bytes().first(chunk.length().value()));
      });
    }

    void Finish() {
      while (!in_flight_.empty()) FinishOne();
    }

   private:
    void FinishOne() {
      Try([this] {
        owner_.Note(reader_->Finish().damage, kWrongChecksum);
        progress_.Advance(in_flight_.front().length());
        in_flight_.pop_front();
      });
    }

    // A reader that has failed is of no more use: what it had in flight is read again, piece by piece.
    template <class Step>
    void Try(const Step& step) {
      try {
        step();
      } catch (const Error&) {
        reader_.reset();
        for (; !in_flight_.empty(); in_flight_.pop_front()) VerifyPieces(in_flight_.front());
      }
    }

    void VerifyPieces(const WorkChunk& chunk) {
      for (std::uint64_t first = chunk.first_page; first < chunk.end_page; first += kPagesPerChunk) {
        VerifyPiece({chunk.block, first, std::min(first + kPagesPerChunk, chunk.end_page)});
      }
      progress_.Advance(chunk.length());
    }

    // One hashed chunk.
    void VerifyPiece(const WorkChunk& piece) {
      try {
        ChunkReader reader(owner_.image_, pages_, EngineKind::kSync, 1, PageChecks::kOn);
        reader.Start(piece, buffers_.front().bytes().first(piece.length().value()));
        owner_.Note(reader.Finish().damage, kWrongChecksum);
      } catch (const Error& error) {
        owner_.Note({{piece.block, {piece.first_page, piece.pages()}}}, fmt::format("cannot be read: {}", error.why()));
      }
    }

    ParallelVerify& owner_;
    const FileDescriptor& pages_;
    Progress& progress_;
    std::vector<AlignedBuffer> buffers_;
    std::size_t started_ = 0;
    std::deque<WorkChunk> in_flight_;
    std::optional<ChunkReader> reader_;
  };

  void Note(const std::vector<DamagedPages>& damage, std::string_view why) {
    const std::lock_guard lock(mutex_);
    for (const DamagedPages& pages : damage) places_.push_back({pages, std::string(why)});
  }

  const Image& image_;
  const ReadOptions& options_;
  WorkPlan plan_;
  std::mutex mutex_;
  std::vector<DamagedPlace> places_;
};

Damage FindDamageBesidesPages(const Image& image, const ReadOptions& options, Progress& progress,
                              const Interrupt& interrupt) {
  if (Damage damage = FindMetadataDamage(image)) return damage;
  if (image.has_fixed_offsets()) return std::nullopt;
  // A sequential stream has no checksums but its compressor's: its structure is all there is to look at.
  const StreamWalk walk = WalkStream(image, options, progress, interrupt);
  return image.kind() == ImageKind::kCompressed ? FindMissingEnd(walk.device_state) : std::nullopt;
}

}  // namespace

std::optional<std::string> FindMetadataDamage(const Image& image) {
  // The end of a compressed stream can be seen only by decompressing all of it.
  if (image.kind() == ImageKind::kCompressed) return std::nullopt;
  // Version 3's header says where its stream ends; any other's must show its end.
  if (image.kind() != ImageKind::kVersion3) return FindMissingEnd(image);
  if (Damage damage = FindHeaderDamage(*image.header(), image.before_stream())) return damage;
  return image.integrity() ? FindRangeDamage(*image.integrity(), image.file()) : std::nullopt;
}

void VerifyMetadata(const Image& image) {
  if (const Damage damage = FindMetadataDamage(image)) ThrowDamaged(image, *damage);
}

VerifyReport Verify(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt) {
  VerifyReport report;
  report.has_checksums = image.integrity().has_value();
  try {
    if (Damage damage = FindDamageBesidesPages(image, options, progress, interrupt)) {
      report.damage.push_back(std::move(*damage));
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kDamaged) throw;
    report.damage.emplace_back(error.what());
  }
  if (!report.damage.empty() || !report.has_checksums) return report;
  for (const DamagedPlace& place : ParallelVerify(image, options).Run(progress, interrupt)) {
    report.damage.push_back(fmt::format("{}: {}", Describe(image, place.where), place.why));
  }
  for (const StreamBlock& block : image.contents().blocks)
    report.checked += PagesToBytes(PageIndex{block.present.CountSet()});
  return report;
}

void VerifyAll(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt) {
  const VerifyReport report = Verify(image, options, progress, interrupt);
  if (!report.damage.empty()) ThrowDamaged(image, report.damage.front());
}

}  // namespace vmsave
