#include "reader/decoder.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <zlib.h>

#include <exception>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace vmsave {
namespace {

constexpr std::size_t kOutputBytes = std::size_t{256} * 1024;

// How libarchive tells that there is no lzop, or no shell to start it.
constexpr std::string_view kCommandNotFound = "status 127";
constexpr std::string_view kNotStarted = "unable to run program";

std::string CannotDecompress(std::string_view name) {
  return fmt::format("cannot decompress {}", name);
}

Error Damaged(std::string_view name, BodyFormat format, std::string_view why) {
  return {ErrorKind::kDamaged, CannotDecompress(name), fmt::format("{}: {}", BodyFormatName(format), why),
          "restore from another copy"};
}

// libarchive's gzip filter looks at no checksum.
class GzipDecoder final : public Decoder {
 public:
  explicit GzipDecoder(PieceSource& compressed) : compressed_(compressed), output_(kOutputBytes) {
    constexpr int kLargestWindow = 15;
    constexpr int kGzipOnly = 16;
    if (::inflateInit2(&stream_, kLargestWindow + kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipDecoder() override { ::inflateEnd(&stream_); }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;

  std::span<const std::byte> Next() override {
    std::size_t made = 0;
    while (made == 0) {
      if (stream_.avail_in == 0 && !TakeInput()) return {};
      made = Inflate();
    }
    return std::span(output_).first(made);
  }

 private:
  // False at the end of the last member.
  bool TakeInput() {
    const std::span<const std::byte> piece = compressed_.TakePiece();
    if (piece.empty() && !between_members_) throw Damaged(compressed_.name(), BodyFormat::kGzip, "it ends early");
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(piece.data()));  // zlib only reads it
    stream_.avail_in = static_cast<uInt>(piece.size());
    return !piece.empty();
  }

  std::size_t Inflate() {
    between_members_ = false;
    stream_.next_out = reinterpret_cast<Bytef*>(output_.data());
    stream_.avail_out = static_cast<uInt>(output_.size());
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    if (status == Z_MEM_ERROR) throw std::bad_alloc();
    if (status == Z_STREAM_END) {
      between_members_ = true;
      ::inflateReset(&stream_);
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      throw Damaged(compressed_.name(), BodyFormat::kGzip, stream_.msg == nullptr ? "wrong data" : stream_.msg);
    }
    return output_.size() - stream_.avail_out;
  }

  PieceSource& compressed_;
  z_stream stream_{};
  std::vector<std::byte> output_;
  bool between_members_ = false;
};

// libarchive's filters, behind its "raw" format: bytes that are no archive.
class ArchiveDecoder final : public Decoder {
 public:
  ArchiveDecoder(PieceSource& compressed, BodyFormat format)
      : compressed_(compressed), format_(format), archive_(archive_read_new()) {
    if (!archive_) throw std::bad_alloc();
    archive_read_support_format_raw(archive_.get());
    if (AppendFilter() < ARCHIVE_WARN) Fail();
    if (archive_read_open(archive_.get(), this, nullptr, TakeInput, nullptr) != ARCHIVE_OK) Fail();
    archive_entry* entry = nullptr;
    if (archive_read_next_header(archive_.get(), &entry) < ARCHIVE_WARN) Fail();
  }

  std::span<const std::byte> Next() override {
    const void* bytes = nullptr;
    std::size_t count = 0;
    la_int64_t offset = 0;
    int status = ARCHIVE_OK;
    do {
      status = archive_read_data_block(archive_.get(), &bytes, &count, &offset);
    } while (status == ARCHIVE_RETRY || (status == ARCHIVE_OK && count == 0));
    if (status == ARCHIVE_EOF) return {};
    if (status != ARCHIVE_OK) Fail();
    return {static_cast<const std::byte*>(bytes), count};
  }

 private:
  struct Closer {
    void operator()(::archive* reader) const { archive_read_free(reader); }
  };

  int AppendFilter() {
    switch (format_) {
      case BodyFormat::kBzip2:
        return archive_read_append_filter(archive_.get(), ARCHIVE_FILTER_BZIP2);
      case BodyFormat::kXz:
        return archive_read_append_filter(archive_.get(), ARCHIVE_FILTER_XZ);
      case BodyFormat::kZstd:
        return archive_read_append_filter(archive_.get(), ARCHIVE_FILTER_ZSTD);
      default:
        // libarchive has no lzop of its own. The program complains of readers that have had enough, even with --quiet.
        return archive_read_append_filter_program(archive_.get(), R"(sh -c "exec lzop -dc 2>/dev/null")");
    }
  }

  // Called by libarchive, which no exception may pass.
  static la_ssize_t TakeInput(::archive* /*reader*/, void* self, const void** piece) noexcept {
    auto* const decoder = static_cast<ArchiveDecoder*>(self);
    try {
      const std::span<const std::byte> bytes = decoder->compressed_.TakePiece();
      *piece = bytes.data();
      return static_cast<la_ssize_t>(bytes.size());
    } catch (...) {
      decoder->failure_ = std::current_exception();
      return ARCHIVE_FATAL;
    }
  }

  std::string Reason() const {
    const char* const text = archive_error_string(archive_.get());
    return text == nullptr ? "libarchive failed" : text;
  }

  [[noreturn]] void Fail() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    const std::string why = Reason();
    if (why.ends_with(kCommandNotFound) || why.find(kNotStarted) != std::string::npos) {
      throw Error(ErrorKind::kFailed, CannotDecompress(compressed_.name()), "the program lzop cannot be started",
                  "is it installed?");
    }
    throw Damaged(compressed_.name(), format_, why);
  }

  PieceSource& compressed_;
  BodyFormat format_;
  std::exception_ptr failure_;  // of reading the source, on its way through libarchive
  std::unique_ptr<::archive, Closer> archive_;
};

}  // namespace

std::unique_ptr<Decoder> MakeDecoder(PieceSource& compressed, BodyFormat format) {
  if (format == BodyFormat::kGzip) return std::make_unique<GzipDecoder>(compressed);
  return std::make_unique<ArchiveDecoder>(compressed, format);
}

}  // namespace vmsave
