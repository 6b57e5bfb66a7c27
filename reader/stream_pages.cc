#include "reader/stream_pages.h"

#include "reader/image_stream.h"

namespace vmsave {

StreamWalk WalkStream(const Image& image, const ReadOptions& options, Progress& progress, const Interrupt& interrupt) {
  const std::unique_ptr<PieceSource> source = OpenStream(image, options, "reading the stream", progress, interrupt);
  PresenceSink sink;
  RefuseChangedBlocks(image, ReadStreamUpToDevices(*source, sink));
  return {sink.Take(), ReadDeviceState(*source)};
}

}  // namespace vmsave
