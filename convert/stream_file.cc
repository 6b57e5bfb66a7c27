#include "convert/stream_file.h"

#include <algorithm>

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

class FileSink final : public ByteSink {
 public:
  using ByteSink::Write;
  explicit FileSink(SequentialWriter& writer) : writer_(writer) {}
  void Write(std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) writer_.Append(BytesOf(piece));
  }

 private:
  SequentialWriter& writer_;
};

class CompressingSink final : public ByteSink {
 public:
  using ByteSink::Write;
  explicit CompressingSink(Compressor& compressor) : compressor_(compressor) {}
  void Write(std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) compressor_.Write(BytesOf(piece));
  }

 private:
  Compressor& compressor_;
};

}  // namespace

ByteCount WriteStreamFile(const Image& image, NewFile& file, const StreamEnvelope& envelope, const ReadOptions& options,
                          PageChecks checks, Progress& progress, const Interrupt& interrupt) {
  SequentialWriter writer(file, options.engine, std::clamp(options.channels, kLeastInFlight, kMostInFlight));
  writer.Append(EncodeBeforeStream(envelope.description, envelope.was_running, envelope.format));
  if (envelope.format == BodyFormat::kRaw) {
    FileSink sink(writer);
    SendImage(image, sink, options, checks, progress, interrupt);
  } else {
    const auto compressor = MakeCompressor(envelope.format, options.channels, [&](std::span<const std::byte> bytes) {
      interrupt.Check();  // a compressor may hold back much until its end
      writer.Append(bytes);
    });
    CompressingSink sink(*compressor);
    SendImage(image, sink, options, checks, progress, interrupt);
    compressor->Finish();
  }
  const ByteCount length = writer.position() - FileOffset{0};
  writer.Finish();
  CompleteImage(file, progress);
  return length;
}

}  // namespace vmsave
