#include "writer/raw_store.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "io/sparse_file.h"
#include "writer/page_places.h"
#include "writer/page_writer.h"

namespace vmsave {
namespace {

// What is in the file, and what is to be seen of it.
struct BlockPages {
  explicit BlockPages(std::uint64_t pages) : written(pages), present(pages) {}
  PageBitmap written;
  PageBitmap present;
};

class RawChannel final : public PageChannel {
 public:
  RawChannel(const PagePlaces& places, std::vector<BlockPages>& blocks, std::unique_ptr<IoEngine> engine)
      : blocks_(blocks), writer_(places, std::move(engine)) {}

  std::span<const iovec> Place(std::size_t block, std::span<const PageIndex> pages) override {
    block_ = block;
    pages_.assign(pages.begin(), pages.end());
    const std::span<std::byte> room = writer_.Room(block, pages.size());
    piece_ = {room.data(), room.size()};
    return {&piece_, 1};
  }

  void Commit() override {
    blocks_[block_].written.SetShared(pages_);
    blocks_[block_].present.SetShared(pages_);
    writer_.Took(pages_);
  }

  void Zero(std::size_t block, std::span<const PageIndex> pages) override { blocks_[block].present.ClearShared(pages); }

  void Settle() override { writer_.Drain(); }

 private:
  std::vector<BlockPages>& blocks_;
  std::size_t block_ = 0;  // of what is placed
  std::vector<PageIndex> pages_;
  iovec piece_{};
  PageWriter writer_;
};

class RawStore final : public PageStore {
 public:
  RawStore(NewFile& file, const std::vector<BlockShape>& blocks, RawLayout layout, const WriteOptions& options)
      : file_(file),
        head_(std::move(layout.head)),
        length_(layout.file_length),
        options_(options),
        places_(file.pages(), std::move(layout.block_starts)) {
    for (const BlockShape& block : blocks) blocks_.emplace_back(block.length.value() / kPageBytes);
    SetFileLength(file.buffered(), length_);
  }

  std::unique_ptr<PageChannel> OpenChannel() override {
    return std::make_unique<RawChannel>(places_, blocks_, MakeEngine(options_.engine, ChannelDepth(options_.channels)));
  }

  WriteTotals Complete(const StreamFrame& /*frame*/, std::span<const std::byte> /*device_state*/,
                       Progress& /*progress*/, const Interrupt& interrupt) override {
    interrupt.Check();
    for (std::size_t block = 0; block < blocks_.size(); ++block) ClearWhatBecameZero(block);
    WriteAt(file_.buffered(), head_, FileOffset{0});
    std::vector<PageBitmap> present;
    for (BlockPages& block : blocks_) present.push_back(std::move(block.present));
    return CountTotals(present, length_);
  }

 private:
  void ClearWhatBecameZero(std::size_t block) {
    static constexpr std::array<std::byte, kPageBytes> kZeros{};
    const BlockPages& pages = blocks_[block];
    for (std::uint64_t page = 0; page < pages.present.pages(); ++page) {
      if (!pages.written.Test(page) || pages.present.Test(page)) continue;
      const FileOffset place = places_.Of(block, PageIndex{page});
      if (!PunchHole(file_.buffered(), {place, place + kPageSize})) WriteAt(file_.buffered(), kZeros, place);
    }
  }

  NewFile& file_;
  std::vector<std::byte> head_;
  ByteCount length_;
  WriteOptions options_;
  PagePlaces places_;
  std::vector<BlockPages> blocks_;
};

}  // namespace

std::unique_ptr<PageStore> MakeRawStore(NewFile& file, const std::vector<BlockShape>& blocks, RawLayout layout,
                                        const WriteOptions& options) {
  return std::make_unique<RawStore>(file, blocks, std::move(layout), options);
}

}  // namespace vmsave
