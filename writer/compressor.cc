#include "writer/compressor.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <zstd.h>

#include <exception>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace vmsave {
namespace {

constexpr const char* kXzLevel = "3";  // as libvirt asks xz for; its own 6 takes several times as long

Error CannotCompress(BodyFormat format, std::string_view why, std::string_view advice = "") {
  return {ErrorKind::kFailed, fmt::format("cannot compress with {}", BodyFormatName(format)), why, advice};
}

// libarchive's filters, behind its "raw" format: bytes that are no archive.
class ArchiveCompressor final : public Compressor {
 public:
  ArchiveCompressor(BodyFormat format, unsigned threads, Output output)
      : format_(format), output_(std::move(output)), archive_(archive_write_new()) {
    if (!archive_) throw std::bad_alloc();
    Check(archive_write_set_format_raw(archive_.get()));
    Check(AddFilter());
    if (format_ == BodyFormat::kXz) {
      Check(archive_write_set_filter_option(archive_.get(), "xz", "compression-level", kXzLevel));
      Check(archive_write_set_filter_option(archive_.get(), "xz", "threads", std::to_string(threads).c_str()));
    }
    Check(archive_write_set_bytes_per_block(archive_.get(), 0));  // whatever comes out is passed on, without padding
    Check(archive_write_open(archive_.get(), this, nullptr, PassOn, nullptr));
    WriteHeader();
  }

  void Write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const la_ssize_t taken = archive_write_data(archive_.get(), bytes.data(), bytes.size());
      if (taken <= 0) Fail();
      bytes = bytes.subspan(static_cast<std::size_t>(taken));
    }
  }

  void Finish() override { Check(archive_write_close(archive_.get())); }

 private:
  // Of a writer that was not closed, nothing more is to be written.
  struct Closer {
    void operator()(::archive* writer) const {
      archive_write_fail(writer);
      archive_write_free(writer);
    }
  };

  int AddFilter() {
    switch (format_) {
      case BodyFormat::kGzip:
        return archive_write_add_filter_gzip(archive_.get());
      case BodyFormat::kBzip2:
        return archive_write_add_filter_bzip2(archive_.get());
      case BodyFormat::kXz:
        return archive_write_add_filter_xz(archive_.get());
      default:
        return archive_write_add_filter_program(archive_.get(), "lzop -c");
    }
  }

  void WriteHeader() {
    const std::unique_ptr<archive_entry, decltype(&archive_entry_free)> entry(archive_entry_new(), archive_entry_free);
    if (!entry) throw std::bad_alloc();
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    Check(archive_write_header(archive_.get(), entry.get()));
  }

  // Called by libarchive, which no exception may pass.
  static la_ssize_t PassOn(::archive* /*writer*/, void* self, const void* bytes, std::size_t count) noexcept {
    auto* const compressor = static_cast<ArchiveCompressor*>(self);
    try {
      compressor->output_({static_cast<const std::byte*>(bytes), count});
      return static_cast<la_ssize_t>(count);
    } catch (...) {
      compressor->failure_ = std::current_exception();
      return -1;
    }
  }

  void Check(int status) {
    if (status < ARCHIVE_WARN) Fail();
  }

  [[noreturn]] void Fail() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    const char* const text = archive_error_string(archive_.get());
    throw CannotCompress(format_, text == nullptr ? "libarchive failed" : text,
                         format_ == BodyFormat::kLzop ? "is the program lzop installed?" : "");
  }

  BodyFormat format_;
  Output output_;
  std::exception_ptr failure_;  // of the output, on its way through libarchive
  std::unique_ptr<::archive, Closer> archive_;
};

// libarchive's zstd filter makes frames without checksums.
class ZstdCompressor final : public Compressor {
 public:
  ZstdCompressor(unsigned threads, Output output)
      : output_(std::move(output)), context_(ZSTD_createCCtx(), ZSTD_freeCCtx), buffer_(ZSTD_CStreamOutSize()) {
    if (!context_) throw std::bad_alloc();
    Check(ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1));
    // A library built without threads compresses on this one.
    if (threads > 1) ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_nbWorkers, static_cast<int>(threads));
  }

  void Write(std::span<const std::byte> bytes) override {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    while (in.pos < in.size) Step(in, ZSTD_e_continue);
  }

  void Finish() override {
    ZSTD_inBuffer in{nullptr, 0, 0};
    while (Step(in, ZSTD_e_end) > 0) {
    }
  }

 private:
  std::size_t Step(ZSTD_inBuffer& in, ZSTD_EndDirective directive) {
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
    const std::size_t left = Check(ZSTD_compressStream2(context_.get(), &out, &in, directive));
    if (out.pos > 0) output_(std::span(buffer_).first(out.pos));
    return left;
  }

  static std::size_t Check(std::size_t result) {
    if (ZSTD_isError(result) != 0) throw CannotCompress(BodyFormat::kZstd, ZSTD_getErrorName(result));
    return result;
  }

  Output output_;
  std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context_;
  std::vector<std::byte> buffer_;
};

}  // namespace

std::unique_ptr<Compressor> MakeCompressor(BodyFormat format, unsigned threads, Compressor::Output output) {
  if (format == BodyFormat::kZstd) return std::make_unique<ZstdCompressor>(threads, std::move(output));
  return std::make_unique<ArchiveCompressor>(format, threads, std::move(output));
}

}  // namespace vmsave
