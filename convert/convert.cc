#include "convert/convert.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "convert/envelope.h"
#include "convert/image_edit.h"
#include "convert/page_transfer.h"
#include "convert/stream_file.h"
#include "io/clone.h"
#include "reader/verify.h"
#include "writer/complete_image.h"

namespace vmsave {
namespace {

// Both ends have a header and the same body.
bool IsEnvelopeChange(const Image& source, const ConvertOptions& options) {
  return source.header() && source.has_fixed_offsets() && options.to != TargetKind::kVersion2 && !options.description;
}

FixedOffsetKind KindOf(const ConvertOptions& options) {
  return options.to == TargetKind::kLibvirtSparse ? FixedOffsetKind::kLibvirtSparse : Version3Kind(options.checksums);
}

WriteOptions WriteOptionsOf(const ConvertOptions& options) {
  return {options.transfer.channels, options.transfer.engine, options.checksums};
}

[[noreturn]] void Refuse(const Image& source, std::string_view why, std::string_view advice = "") {
  throw Error(ErrorKind::kFailed, fmt::format("cannot convert {}", source.path()), why, advice);
}

// Only version 3 says where its stream ends.
void RefuseLostEnd(const Image& source, const ConvertOptions& options) {
  if (options.to == TargetKind::kVersion3 || !source.has_fixed_offsets()) return;
  const std::span<const std::byte> device_state = source.device_state();
  if (FindStreamEnd(device_state) == device_state.size()) return;
  Refuse(source,
         "its guest ran with suppress-vmdesc=on, so that nobody could tell whether another image of it is whole",
         "convert it to version 3, or restore it with vmrestore");
}

void RefuseLongDescription(const Image& source, const std::string& description) {
  if (description.size() <= kMaxDescriptionBytes / 2) return;
  Refuse(source, fmt::format("its description is longer than {} MiB", kMaxDescriptionBytes / 2 >> 20),
         "give a shorter one with --description");
}

// libvirt's own notes on the guest go into the padding behind the description, as writers make it.
std::span<const std::byte> CookieToCarry(const Image& source) {
  if (!source.header()) return {};
  const std::span<const std::byte> cookie = FindCookie(source.before_stream(), *source.header());
  if (cookie.size() <= kDescriptionPadding) return cookie;
  Refuse(source, fmt::format("libvirt's cookie in it, of {} bytes, is too long", cookie.size()));
}

// Whether pages lose their checksums without having been read.
bool DropsChecksumsUnread(const Image& source, const ConvertOptions& options) {
  return source.integrity() && IsEnvelopeChange(source, options) && KindOf(options) != FixedOffsetKind::kVersion3;
}

void CheckSource(const Image& source, const ConvertOptions& options, Progress& progress, const Interrupt& interrupt) {
  if (options.checks == SourceChecks::kNothing) return;
  if (options.checks == SourceChecks::kFull || DropsChecksumsUnread(source, options)) {
    VerifyAll(source, options.transfer, progress, interrupt);
  } else {
    VerifyMetadata(source);
  }
}

PageChecks ChecksOnTheWay(const ConvertOptions& options) {
  return options.checks == SourceChecks::kNothing ? PageChecks::kOff : PageChecks::kOn;
}

class Conversion {
 public:
  Conversion(const Image& source, NewFile& target, const ConvertOptions& options, Progress& progress,
             const Interrupt& interrupt)
      : source_(source),
        target_(target),
        options_(options),
        description_(options.description.value_or(source.description())),
        cookie_(CookieToCarry(source)),
        progress_(progress),
        interrupt_(interrupt) {}

  ConvertSummary Run() {
    RefuseLostEnd(source_, options_);
    RefuseLongDescription(source_, description_);
    CheckSource(source_, options_, progress_, interrupt_);
    ConvertSummary summary{source_.contents().ram_length(), {}, PageFate::kMoved};
    if (IsEnvelopeChange(source_, options_) && CloneFile(source_.file(), target_.buffered())) {
      summary.pages = PageFate::kShared;
      summary.file_length = ChangeEnvelopeOfClone();
    } else {
      summary.file_length = WritesAsStream() ? WriteStream() : TransferPagesToStore();
      CarryCookie();
    }
    return summary;
  }

 private:
  // What stands before the stream may have been edited since the image was opened, or be in an edit's record.
  ByteCount ChangeEnvelopeOfClone() {
    WriteAt(target_.buffered(), source_.before_stream(), FileOffset{0});
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
    return WriteStreamFile(source_, target_, {description_, source_.was_running(), options_.compression},
                           options_.transfer, ChecksOnTheWay(options_), progress_, interrupt_);
  }

  ByteCount TransferPagesToStore() {
    const auto make_store = [this](const StreamContents& contents) {
      ArrivingGuest guest{contents.frame, contents.block_shapes(), description_, source_.was_running()};
      const WriteOptions write = WriteOptionsOf(options_);
      if (options_.to == TargetKind::kVersion2) return MakeVersion2Store(target_, std::move(guest), write);
      if (options_.to == TargetKind::kVersion3) return MakeVersion3Store(target_, std::move(guest), write);
      return MakeLibvirtSparseStore(target_, std::move(guest), write);
    };
    return TransferPages(source_, make_store, options_.transfer, ChecksOnTheWay(options_), progress_, interrupt_)
        .file_length;
  }

  void CarryCookie() {
    if (cookie_.empty()) return;
    const std::optional<ImageHead> head = ReadImageHead(target_.buffered());
    WriteAt(target_.buffered(), WithCookie(head->before_stream, head->header, cookie_), FileOffset{0});
  }

  const Image& source_;
  NewFile& target_;
  const ConvertOptions& options_;
  std::string description_;
  std::span<const std::byte> cookie_;  // of the source
  Progress& progress_;
  const Interrupt& interrupt_;
};

bool IsSameFile(const FileDescriptor& a, const FileDescriptor& b) {
  struct stat of_a {};
  struct stat of_b {};
  if (::fstat(a.number(), &of_a) != 0) throw Error::FromErrno(fmt::format("cannot look at {}", a.name()), errno);
  if (::fstat(b.number(), &of_b) != 0) throw Error::FromErrno(fmt::format("cannot look at {}", b.name()), errno);
  return of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

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
  if (!IsSameFile(edit.file(), image.file())) Refuse(image, "another file has taken its name", "try again");
  if (!IsEnvelopeChange(image, options)) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot convert {} in place", path),
                "that takes more than another header", "name a TARGET instead of --in-place");
  }
  RefuseLostEnd(image, options);
  CheckSource(image, options, progress, interrupt);
  const FileDescriptor pages = image.OpenForPages(options.transfer.cache);
  const ByteCount length =
      ChangeEnvelope({edit.file(), pages}, image, KindOf(options), WriteOptionsOf(options), progress, interrupt);
  return {image.contents().ram_length(), length, PageFate::kStayed};
}

}  // namespace vmsave
