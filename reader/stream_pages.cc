#include "reader/stream_pages.h"

#include "reader/file_source.h"

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

std::vector<PageBitmap> FindStreamPages(const Image& image, const ReadOptions& options, Progress& progress,
                                        const Interrupt& interrupt) {
  progress.Begin("reading the stream", image.stream_end() - image.stream_start());
  const FileDescriptor pages = image.OpenForPages(options.cache);
  ReadAheadSource source(pages, image.file(), image.stream_start(), image.stream_end(), options.engine, progress,
                         interrupt);
  PresenceSink sink;
  ReadStreamUpToDevices(source, sink);
  std::vector<PageBitmap> present = sink.Take();
  if (present.size() != image.contents().blocks.size()) {
    throw Error(ErrorKind::kDamaged, "cannot use " + image.path(), "its block list changed while it was read");
  }
  return present;
}

}  // namespace vmsave
