#include "reader/stream_pages.h"

#include "reader/image_stream.h"

namespace vmsave {
namespace {

class PresenceSink : public PageSink {
 public:
  void OnBlocks(const StreamContents& contents) override {
    for (const StreamBlock& block : contents.blocks) present_.emplace_back(block.pages());
  }
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    present_[block].Set(page.value());
    return dropped_page_;
  }
  void OnZeroPage(std::size_t block, PageIndex page) override { present_[block].Clear(page.value()); }

  std::vector<PageBitmap> Take() { return std::move(present_); }

 private:
  std::vector<std::byte> dropped_page_ = std::vector<std::byte>(kPageBytes);
  std::vector<PageBitmap> present_;
};

}  // namespace

StreamWalk WalkStream(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt) {
  const std::unique_ptr<PieceSource> source = OpenStream(image, options, "reading the stream", progress, interrupt);
  PresenceSink sink;
  RefuseChangedBlocks(image, ReadStreamUpToDevices(*source, sink));
  return {sink.Take(), ReadDeviceState(*source)};
}

}  // namespace vmsave
