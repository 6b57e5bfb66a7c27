#include "reader/image_stream.h"

#include <algorithm>
#include <utility>

#include "reader/decompressed_source.h"

namespace vmsave {
namespace {

struct Pages {
  FileDescriptor pages;
};

// A ReadAheadSource that has its descriptor with it.
class StreamFile final : private Pages, public ReadAheadSource {
 public:
  StreamFile(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt)
      : Pages{image.OpenForPages(options.cache)},
        ReadAheadSource(pages, image.file(), image.stream_start(), image.stream_end(), options.engine, progress,
                        interrupt) {}
};

}  // namespace

std::unique_ptr<PieceSource> OpenStream(const Image& image, const ReadOptions& options, const char* phase,
                                        Progress& progress, const Interrupt& interrupt) {
  progress.Begin(phase, image.stream_end() - image.stream_start());
  auto file = std::make_unique<StreamFile>(image, options, progress, interrupt);
  if (image.kind() != ImageKind::kCompressed) return file;
  return std::make_unique<DecompressedSource>(std::move(file), image.header()->format, interrupt);
}

void RefuseChangedBlocks(const Image& image, const StreamContents& now) {
  const auto same = [](const StreamBlock& a, const StreamBlock& b) { return a.name == b.name && a.length == b.length; };
  if (std::ranges::equal(now.blocks, image.contents().blocks, same)) return;
  throw Error(ErrorKind::kDamaged, "cannot use " + image.path(), "its block list changed while it was read");
}

}  // namespace vmsave
