#include "reader/decompressed_source.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace vmsave {
namespace {

constexpr std::string_view kCommandNotFound = "status 127";  // of a shell

int AppendFilter(::archive* reader, BodyFormat format) {
  // libarchive has no lzop of its own. The program complains of readers that have had enough, even with --quiet.
  if (format == BodyFormat::kLzop) {
    return archive_read_append_filter_program(reader, R"(sh -c "exec lzop -dc 2>/dev/null")");
  }
  constexpr int kFilters[] = {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_BZIP2,
                              ARCHIVE_FILTER_XZ,   ARCHIVE_FILTER_LZOP, ARCHIVE_FILTER_ZSTD};
  return archive_read_append_filter(reader, kFilters[static_cast<std::uint32_t>(format)]);
}

}  // namespace

void DecompressedSource::Closer::operator()(::archive* reader) const {
  archive_read_free(reader);
}

DecompressedSource::DecompressedSource(std::unique_ptr<PieceSource> compressed, BodyFormat format)
    : compressed_(std::move(compressed)), format_(format), name_(compressed_->name()) {
  Open();
}

DecompressedSource::~DecompressedSource() = default;

void DecompressedSource::Open() {
  archive_.reset(archive_read_new());
  ::archive* const reader = archive_.get();
  if (reader == nullptr) throw std::bad_alloc();
  // "Raw": bytes that are no archive.
  archive_read_support_format_raw(reader);
  if (AppendFilter(reader, format_) < ARCHIVE_WARN) Fail();
  const auto read = [](::archive*, void* self, const void** piece) -> la_ssize_t {
    auto* const source = static_cast<DecompressedSource*>(self);
    const std::span<const std::byte> bytes = source->TakeCompressed();
    *piece = bytes.data();
    return source->failure_ ? ARCHIVE_FATAL : static_cast<la_ssize_t>(bytes.size());
  };
  archive_entry* entry = nullptr;
  if (archive_read_open(reader, this, nullptr, read, nullptr) != ARCHIVE_OK) Fail();
  if (archive_read_next_header(reader, &entry) < ARCHIVE_WARN) Fail();
}

// Called by libarchive, which no exception may pass.
std::span<const std::byte> DecompressedSource::TakeCompressed() noexcept {
  try {
    return compressed_->TakePiece();
  } catch (...) {
    failure_ = std::current_exception();
    return {};
  }
}

void DecompressedSource::Fail() {
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  const char* const text = archive_error_string(archive_.get());
  const std::string why = text == nullptr ? "it cannot be decompressed" : text;
  const std::string what = fmt::format("cannot decompress {}", name_);
  if (format_ == BodyFormat::kLzop && why.ends_with(kCommandNotFound)) {
    throw Error(ErrorKind::kFailed, what, "there is no program lzop", "install it");
  }
  throw Error(ErrorKind::kDamaged, what, fmt::format("{}: {}", BodyFormatName(format_), why),
              "restore from another copy");
}

void DecompressedSource::NextPiece() {
  const void* bytes = nullptr;
  std::size_t count = 0;
  la_int64_t offset = 0;
  int status = ARCHIVE_OK;
  do {
    status = archive_read_data_block(archive_.get(), &bytes, &count, &offset);
  } while (status == ARCHIVE_RETRY || (status == ARCHIVE_OK && count == 0));
  if (status == ARCHIVE_EOF) return;
  if (status != ARCHIVE_OK) Fail();
  ready_ = {static_cast<const std::byte*>(bytes), count};
}

std::size_t DecompressedSource::ReadSome(std::span<std::byte> out) {
  if (ready_.empty()) NextPiece();
  const std::size_t count = std::min(out.size(), ready_.size());
  std::copy_n(ready_.begin(), count, out.begin());
  ready_ = ready_.subspan(count);
  position_ += ByteCount{count};
  return count;
}

// The byte lies in the piece still, which libarchive keeps until it is asked for the next one.
void DecompressedSource::StepBack() {
  ready_ = {ready_.data() - 1, ready_.size() + 1};
  position_ = FileOffset{position_.value() - 1};
}

std::span<const std::byte> DecompressedSource::TakePiece() {
  if (ready_.empty()) NextPiece();
  position_ += ByteCount{ready_.size()};
  return std::exchange(ready_, {});
}

}  // namespace vmsave
