// Opens a save image of any kind and tells what is in it. Start here to read an image.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "format/integrity_table.h"
#include "format/stream_reader.h"
#include "io/new_file.h"
#include "io/sparse_file.h"
#include "reader/image_head.h"

namespace vmsave {

enum class ImageKind {
  kStream,         // version 1 or 2, raw: QEMU's sequential stream
  kCompressed,     // version 2, the stream compressed
  kVersion3,       // vmsave's: fixed offsets
  kLibvirtSparse,  // libvirt's: version 2 with fixed offsets
  kBareStream,     // QEMU's own `migrate file:`, no header
  kBareMappedRam,  // the same with mapped-ram
};

std::string_view ImageKindName(ImageKind kind);

// Immutable after construction, so it may be read from several threads. Holds the file open, read-only. What was
// decoded has been checked for sense: offsets lie within the file, blocks within their bounds. Checksums are
// VerifyMetadata's and the page readers' business.
class Image {
 public:
  // Throws Error{kFailed} where the file cannot be opened; Error{kDamaged} for what is not an image, a partial or
  // truncated one, a version or a feature that is not known.
  explicit Image(const std::string& path);

  const std::string& path() const { return path_; }
  ImageKind kind() const { return kind_; }
  bool has_fixed_offsets() const;

  // Nothing for bare streams.
  const std::optional<SaveHeader>& header() const { return header_; }
  const std::string& description() const { return description_; }
  // Header, description, cookie and padding. Empty for bare streams.
  std::span<const std::byte> before_stream() const { return before_stream_; }
  // Whether an edit of these was interrupted. It is taken into account in all that is told here.
  EditTrace edit_trace() const { return edit_; }
  bool was_running() const { return !header_ || header_->was_running; }

  // Machine type and RAM blocks; with fixed offsets, also which pages are present.
  const StreamContents& contents() const { return contents_; }

  FileOffset stream_start() const { return stream_start_; }
  FileOffset stream_end() const { return stream_end_; }

  // With fixed offsets only: everything behind ram's END up to the stream's end.
  std::span<const std::byte> device_state() const { return device_state_; }

  // Version 3 with checksums only.
  const std::optional<IntegrityTable>& integrity() const { return integrity_; }

  // Without what stands behind the image.
  ByteCount file_length() const { return length_; }
  ByteCount disk_usage() const;

  // Through the page cache.
  const FileDescriptor& file() const { return file_; }

  // One more descriptor for pages: O_DIRECT with kBypass. Throws as OpenDirect and AskDirectAlignment do.
  FileDescriptor OpenForPages(CacheUse cache) const;

  // Whether the alignment of kBypass is told or assumed. Throws as OpenForPages does.
  AlignmentSource alignment_source() const;

 private:
  std::optional<std::string> FindMetadataDamage() const;
  void ReadHead();
  void RequireBareStream() const;
  void ReadIntegrityTable();
  void CheckLongTable(const HeaderExtension& extension) const;
  void ReadStream();
  void ReadCompressedHead();
  void ReadDevices(FileOffset begin);
  void RefuseMoreHolesThanDevices(FileRange rest) const;
  void RefuseStreamWithoutRam() const;
  ByteCount MostRam() const;  // that as much data can be of
  void CheckPagesLieInFile() const;
  void CheckTableMatchesBlocks() const;
  [[noreturn]] void Refuse(std::string_view why, std::string_view advice = "") const;

  std::string path_;
  FileDescriptor file_;
  ByteCount length_;
  ImageKind kind_ = ImageKind::kBareStream;
  std::optional<SaveHeader> header_;
  std::vector<std::byte> before_stream_;
  EditTrace edit_ = EditTrace::kNone;
  std::string description_;
  FileOffset stream_start_;
  FileOffset stream_end_;
  StreamContents contents_;
  std::vector<std::byte> device_state_;
  std::optional<IntegrityTable> integrity_;
};

}  // namespace vmsave
