#include "writer/fixed_offset_store.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "writer/arriving_chunks.h"
#include "writer/chunk_rehash.h"
#include "writer/complete_image.h"
#include "writer/fixed_offset_file.h"
#include "writer/page_writer.h"

namespace vmsave {
namespace {

FixedOffsetGuest Describe(ArrivingGuest guest) {
  FixedOffsetGuest described{std::move(guest.frame), std::move(guest.description), guest.was_running, {}};
  for (BlockShape& block : guest.blocks) {
    described.blocks.push_back({std::move(block.name), block.length, std::nullopt, {}});
  }
  return described;
}

// What channels share.
struct Shared {
  Shared(const NewFile& new_file, ArrivingGuest guest, FixedOffsetKind kind)
      : file(new_file, Describe(std::move(guest)), kind) {
    if (!file.has_checksums()) return;
    std::vector<std::span<std::uint64_t>> hashes;
    for (std::size_t block = 0; block < file.present().size(); ++block) hashes.push_back(file.chunk_hashes(block));
    chunks.emplace(std::move(hashes));
  }

  FixedOffsetFile file;
  std::optional<ArrivingChunks> chunks;  // with checksums
  std::atomic<bool> lost_pages = false;  // a channel ended before its pages were written
};

class Channel final : public PageChannel {
 public:
  Channel(Shared& shared, std::unique_ptr<IoEngine> engine)
      : shared_(shared), writer_(shared.file.places(), std::move(engine)) {}

  ~Channel() override {
    if (!settled_) shared_.lost_pages.store(true, std::memory_order_relaxed);
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  std::span<const iovec> Place(std::size_t block, std::span<const PageIndex> pages) override {
    block_ = block;
    pages_.assign(pages.begin(), pages.end());
    bytes_ = writer_.Room(block, pages.size());
    pieces_.clear();
    if (std::ranges::is_sorted(pages_)) {
      pieces_.push_back({bytes_.data(), bytes_.size()});
    } else {
      std::ranges::sort(pages_);
      for (const PageIndex page : pages) AddPiece(page);
    }
    return pieces_;
  }

  void Commit() override {
    settled_ = false;
    shared_.file.present()[block_].SetShared(pages_);
    if (shared_.chunks) shared_.chunks->Add(block_, pages_, bytes_, hash_);
    writer_.Took(pages_);
  }

  void Zero(std::size_t block, std::span<const PageIndex> pages) override {
    shared_.file.present()[block].ClearShared(pages);
  }

  void Settle() override {
    writer_.Drain();
    settled_ = true;
  }

 private:
  // QEMU >= 9.0 sends the pages of a packet out of order where it has sorted out the zero ones. In the buffer they lie
  // in ascending order, so that neighbours make one long write.
  void AddPiece(PageIndex page) {
    const auto rank = std::ranges::lower_bound(pages_, page) - pages_.begin();
    std::byte* const place = bytes_.data() + static_cast<std::size_t>(rank) * kPageBytes;
    const bool continues =
        !pieces_.empty() && static_cast<std::byte*>(pieces_.back().iov_base) + pieces_.back().iov_len == place;
    if (continues) {
      pieces_.back().iov_len += kPageBytes;
    } else {
      pieces_.push_back({place, kPageBytes});
    }
  }

  Shared& shared_;
  std::size_t block_ = 0;         // of what is placed, as are the following three
  std::vector<PageIndex> pages_;  // in ascending order
  std::span<std::byte> bytes_;    // of pages_
  std::vector<iovec> pieces_;     // of bytes_, in the order of arrival
  bool settled_ = true;
  Xxh3Stream hash_;
  PageWriter writer_;
};

class FixedOffsetStore final : public PageStore {
 public:
  FixedOffsetStore(NewFile& file, ArrivingGuest guest, FixedOffsetKind kind, const WriteOptions& options,
                   EngineMaker make_engine)
      : file_(file), options_(options), make_engine_(std::move(make_engine)), shared_(file, std::move(guest), kind) {}

  std::unique_ptr<PageChannel> OpenChannel() override { return std::make_unique<Channel>(shared_, make_engine_()); }

  WriteTotals Complete(const StreamFrame& frame, std::span<const std::byte> device_state, Progress& progress,
                       const Interrupt& interrupt) override {
    if (shared_.lost_pages.load(std::memory_order_relaxed)) {
      throw Error(ErrorKind::kFailed, "cannot finish " + file_.path(), "not all pages that came were written");
    }
    if (shared_.chunks) HashTheRest(progress, interrupt);
    const ByteCount length = shared_.file.Finish(frame, device_state);
    CompleteImage(file_, progress);
    return CountTotals(shared_.file.present(), length);
  }

 private:
  void HashTheRest(Progress& progress, const Interrupt& interrupt) {
    FixedOffsetFile& file = shared_.file;
    std::vector<WrittenBlock> blocks;
    for (std::size_t block = 0; block < file.present().size(); ++block) {
      blocks.push_back({file.places().Of(block, PageIndex{0}), &file.present()[block], file.chunk_hashes(block)});
    }
    const auto wanted = [&](std::size_t block, std::uint64_t chunk) {
      return !shared_.chunks->IsHashed(block, chunk, file.present()[block]);
    };
    HashWrittenChunks(file.places().file(), blocks, wanted, options_, progress, interrupt);
  }

  NewFile& file_;
  WriteOptions options_;
  EngineMaker make_engine_;
  Shared shared_;
};

EngineMaker EnginesFor(const WriteOptions& options) {
  return [engine = options.engine, channels = options.channels] { return MakeEngine(engine, ChannelDepth(channels)); };
}

}  // namespace

std::unique_ptr<PageStore> MakeFixedOffsetStore(NewFile& file, ArrivingGuest guest, FixedOffsetKind kind,
                                                const WriteOptions& options, EngineMaker make_engine) {
  return std::make_unique<FixedOffsetStore>(file, std::move(guest), kind, options, std::move(make_engine));
}

std::unique_ptr<PageStore> MakeVersion3Store(NewFile& file, ArrivingGuest guest, const WriteOptions& options) {
  return MakeFixedOffsetStore(file, std::move(guest), Version3Kind(options.checksums), options, EnginesFor(options));
}

std::unique_ptr<PageStore> MakeLibvirtSparseStore(NewFile& file, ArrivingGuest guest, const WriteOptions& options) {
  return MakeFixedOffsetStore(file, std::move(guest), FixedOffsetKind::kLibvirtSparse, options, EnginesFor(options));
}

}  // namespace vmsave
