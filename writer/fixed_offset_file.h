// An image with fixed offsets but for its pages: what stands around them, whoever writes them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/integrity_table.h"
#include "format/mapped_ram.h"
#include "format/page_bitmap.h"
#include "format/save_header.h"
#include "io/new_file.h"
#include "writer/page_places.h"

namespace vmsave {

// The bodies are the same, byte for byte.
enum class FixedOffsetKind {
  kVersion3,
  kVersion3WithoutChecksums,
  kLibvirtSparse,  // libvirt's version 2, format 6: no extension, no checksums
};

constexpr FixedOffsetKind Version3Kind(bool checksums) {
  return checksums ? FixedOffsetKind::kVersion3 : FixedOffsetKind::kVersion3WithoutChecksums;
}

// What stands around QEMU's stream: header and description in front of it, integrity table behind it. Keeps a reference
// to the file. The calls throw Error{kFailed} for what the file refuses.
class FixedOffsetEnvelope {
 public:
  // Writes header and description; the magic says that the image is partial.
  FixedOffsetEnvelope(const NewFile& file, std::string_view description, bool was_running, FixedOffsetKind kind);

  FileOffset stream_start() const { return header_.stream_start(); }

  // Writes the table (nothing: an image without checksums) and what the header says of it. Returns the file's length.
  // What remains is to make the image complete by its magic. REQUIRES: a table goes with kVersion3, and only with it.
  ByteCount Close(FileOffset stream_end, const std::optional<IntegrityTable>& table);

 private:
  const NewFile& file_;
  std::vector<std::byte> description_;
  SaveHeader header_;
};

// What is known of the guest before its pages are written.
struct FixedOffsetGuest {
  StreamFrame frame;
  std::string description;
  bool was_running = true;
  std::vector<HashedBlock> blocks;  // without hashes
};

// The envelope, and of the stream all but the pages. Those who write the pages keep the bitmaps, and with checksums the
// hashes, which are all clear at first. Different blocks' and different chunks' may be used by different threads;
// PageBitmap tells what of one bitmap.
class FixedOffsetFile {
 public:
  // Writes the envelope and gives the file the length that its pages take, so that no write of theirs extends it.
  FixedOffsetFile(const NewFile& file, const FixedOffsetGuest& guest, FixedOffsetKind kind);

  const PagePlaces& places() const { return places_; }

  bool has_checksums() const { return kind_ == FixedOffsetKind::kVersion3; }
  std::vector<PageBitmap>& present() { return present_; }
  std::span<std::uint64_t> chunk_hashes(std::size_t block) { return table_.blocks[block].chunk_hashes; }

  // The pages are in the file: writes the rest of the stream and closes the envelope. `frame` as it was found to be in
  // the end. Returns the file's length. Throws Error{kFailed} also where the frame moves the pages.
  ByteCount Finish(const StreamFrame& frame, std::span<const std::byte> device_state);

 private:
  void LayOutAgain(const StreamFrame& frame);

  const NewFile& file_;
  FixedOffsetKind kind_;
  FixedOffsetEnvelope envelope_;
  IntegrityTable table_;
  FixedOffsetLayout layout_;
  PagePlaces places_;
  std::vector<PageBitmap> present_;
};

}  // namespace vmsave
