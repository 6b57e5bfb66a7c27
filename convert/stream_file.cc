#include "convert/stream_file.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "reader/stream_sender.h"
#include "writer/complete_image.h"
#include "writer/compressor.h"
#include "writer/sequential_writer.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

constexpr unsigned kLeastInFlight = 2;  // so that one buffer is filled while another is written
constexpr unsigned kMostInFlight = 8;

std::span<const std::byte> BytesOf(const iovec& piece) {
  return {static_cast<const std::byte*>(piece.iov_base), piece.iov_len};
}

using TakeBytes = std::function<void(std::span<const std::byte>)>;

// Hands on what it is sent, piece by piece.
class StreamSink final : public ByteSink {
 public:
  using ByteSink::Write;
  explicit StreamSink(TakeBytes take) : take_(std::move(take)) {}
  void Write(std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) take_(BytesOf(piece));
  }

 private:
  TakeBytes take_;
};

}  // namespace

ByteCount WriteStreamFile(const Image& image, NewFile& file, const StreamEnvelope& envelope, const ReadOptions& options,
                          PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  SequentialWriter writer(file, options.engine, std::clamp(options.channels, kLeastInFlight, kMostInFlight));
  writer.Append(EncodeBeforeStream(envelope.description, envelope.was_running, envelope.format));
  const auto send = [&](TakeBytes take) {
    StreamSink sink(std::move(take));
    SendImage(image, sink, options, checks, progress, interrupt);
  };
  if (envelope.format == BodyFormat::kRaw) {
    send([&](std::span<const std::byte> bytes) { writer.Append(bytes); });
  } else {
    const auto compressor = MakeCompressor(envelope.format, options.channels, [&](std::span<const std::byte> bytes) {
      interrupt.Check();  // a compressor may hold back much until its end
      writer.Append(bytes);
    });
    send([&](std::span<const std::byte> bytes) { compressor->Write(bytes); });
    compressor->Finish();
  }
  const ByteCount length = writer.position() - FileOffset{0};
  writer.Finish();
  CompleteImage(file, progress);
  return length;
}

}  // namespace vmsave
