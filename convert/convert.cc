#include "convert/convert.h"

#include <fmt/format.h>

#include "convert/envelope.h"
#include "convert/image_edit.h"
#include "convert/page_transfer.h"
#include "convert/stream_file.h"
#include "io/clone.h"
#include "writer/complete_image.h"

namespace vmsave {
namespace {

// Both ends have a header and the same body.
bool IsEnvelopeChange(const Image& source, const ConvertOptions& options) {
  return source.header() && source.has_fixed_offsets() && options.to != TargetKind::kVersion2 && !options.description;
}

// Else what counts as its header and description does not all stand in its place.
bool HasNoUnfinishedEdit(const Image& source) {
  return source.edit_trace() == EditTrace::kNone;
}

FixedOffsetKind KindOf(const ConvertOptions& options) {
  return options.to == TargetKind::kLibvirtSparse ? FixedOffsetKind::kLibvirtSparse : Version3Kind(options.checksums);
}

WriteOptions WriteOptionsOf(const ConvertOptions& options) {
  return {options.transfer.channels, options.transfer.engine, options.checksums};
}

ByteCount RamOf(const Image& image) {
  ByteCount ram;
  for (const StreamBlock& block : image.contents().blocks) ram += block.length;
  return ram;
}

class Conversion {
 public:
  Conversion(const Image& source, NewFile& target, const ConvertOptions& options, Progress& progress,
             const Interrupt& interrupt)
      : source_(source), target_(target), options_(options), progress_(progress), interrupt_(interrupt) {}

  ConvertSummary Run() {
    ConvertSummary summary{RamOf(source_), {}, PageFate::kMoved};
    if (IsEnvelopeChange(source_, options_) && HasNoUnfinishedEdit(source_) &&
        CloneFile(source_.file(), target_.buffered())) {
      summary.pages = PageFate::kShared;
      summary.file_length = ChangeEnvelopeOfClone();
    } else {
      summary.file_length = WritesAsStream() ? WriteStream() : TransferPagesToStore();
      CarryCookie();
    }
    return summary;
  }

 private:
  ByteCount ChangeEnvelopeOfClone() {
    const ByteCount length = ChangeEnvelope({target_.buffered(), target_.pages()}, source_, KindOf(options_),
                                            WriteOptionsOf(options_), progress_, interrupt_);
    CompleteImage(target_, progress_);
    return length;
  }

  // Records of pages can be placed by several channels at once where they come from fixed offsets. A stream that is one
  // already stays as it is, and a compressor takes one in order.
  bool WritesAsStream() const {
    if (options_.to != TargetKind::kVersion2) return false;
    return options_.compression != BodyFormat::kRaw || !source_.has_fixed_offsets();
  }

  ByteCount WriteStream() {
    return WriteStreamFile(source_, target_, {Description(), source_.was_running(), options_.compression},
                           options_.transfer, options_.checks, progress_, interrupt_);
  }

  ByteCount TransferPagesToStore() {
    const auto make_store = [this](const StreamContents& contents) {
      ArrivingGuest guest{contents.frame, contents.block_shapes(), Description(), source_.was_running()};
      const WriteOptions write = WriteOptionsOf(options_);
      if (options_.to == TargetKind::kVersion2) return MakeVersion2Store(target_, std::move(guest), write);
      if (options_.to == TargetKind::kVersion3) return MakeVersion3Store(target_, std::move(guest), write);
      return MakeLibvirtSparseStore(target_, std::move(guest), write);
    };
    return TransferPages(source_, make_store, options_.transfer, options_.checks, progress_, interrupt_).file_length;
  }

  // libvirt's own notes on the guest. The padding behind the description, as writers make it, has room for them.
  void CarryCookie() {
    if (!source_.header()) return;
    const std::span<const std::byte> cookie = FindCookie(source_.before_stream(), *source_.header());
    if (cookie.empty()) return;
    const std::optional<ImageHead> head = ReadImageHead(target_.buffered());
    if (cookie.size() > DescriptionRoom(head->before_stream, head->header) - Description().size()) {
      throw Error(ErrorKind::kFailed, fmt::format("cannot convert {}", source_.path()),
                  fmt::format("libvirt's cookie in it, of {} bytes, is too long", cookie.size()));
    }
    WriteAt(target_.buffered(), WithCookie(head->before_stream, head->header, cookie), FileOffset{0});
  }

  std::string Description() const { return options_.description.value_or(source_.description()); }

  const Image& source_;
  NewFile& target_;
  const ConvertOptions& options_;
  Progress& progress_;
  const Interrupt& interrupt_;
};

}  // namespace

ConvertSummary Convert(const Image& source, NewFile& target, const ConvertOptions& options, Progress& progress,
                       const Interrupt& interrupt) {
  return Conversion(source, target, options, progress, interrupt).Run();
}

ConvertSummary ConvertInPlace(const std::string& path, const ConvertOptions& options, Progress& progress,
                              const Interrupt& interrupt) {
  ImageEdit edit(path);
  edit.Finish();
  const Image image(path);
  if (!IsEnvelopeChange(image, options)) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot convert {} in place", path),
                "that takes more than another header", "name a TARGET instead of --in-place");
  }
  const FileDescriptor pages = image.OpenForPages(options.transfer.cache);
  const ByteCount length =
      ChangeEnvelope({edit.file(), pages}, image, KindOf(options), WriteOptionsOf(options), progress, interrupt);
  return {RamOf(image), length, PageFate::kStayed};
}

}  // namespace vmsave
