#include "convert/envelope.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "writer/stream_hash.h"

namespace vmsave {
namespace {

struct PlacedTable {
  FileOffset offset;
  ByteCount length;
};

class EnvelopeChange {
 public:
  EnvelopeChange(const EnvelopeFile& file, const Image& image, FixedOffsetKind to)
      : file_(file), image_(image), to_(to) {}

  ByteCount Run(const WriteOptions& options, Progress& progress, const Interrupt& interrupt) {
    const std::optional<PlacedTable> table = MakeTable(options, progress, interrupt);
    WriteAt(file_.buffered, EncodeSaveHeader(MakeHeader(table)), FileOffset{0});
    SyncData(file_.buffered);
    const FileOffset end = table ? table->offset + table->length : image_.stream_end();
    CutOff(end);
    return end - FileOffset{0};
  }

 private:
  // The one that is there, or a new one behind the stream, where a reader of today's header does not look.
  std::optional<PlacedTable> MakeTable(const WriteOptions& options, Progress& progress,
                                       const Interrupt& interrupt) const {
    if (to_ != FixedOffsetKind::kVersion3) return std::nullopt;
    if (image_.integrity()) {
      const HeaderExtension& extension = *image_.header()->extension;
      return PlacedTable{extension.integrity_offset, extension.integrity_length};
    }
    const std::vector<std::byte> table = EncodeIntegrityTable(HashWrittenStream(
        file_.buffered, file_.pages, {image_.stream_start(), image_.stream_end(), image_.contents().blocks}, options,
        progress, interrupt));
    interrupt.Check();
    const PlacedTable place{FileOffset{RoundUp(image_.stream_end().value(), kIntegrityAlignment)},
                            ByteCount{table.size()}};
    AppendTable(place, table);
    return place;
  }

  // On a full disk, say, nothing of it stays.
  void AppendTable(const PlacedTable& place, std::span<const std::byte> table) const {
    try {
      WriteAt(file_.buffered, table, place.offset);
      SyncData(file_.buffered);
    } catch (const Error&) {
      static_cast<void>(::ftruncate(file_.buffered.number(), static_cast<off_t>(image_.file_length().value())));
      throw;
    }
  }

  SaveHeader MakeHeader(const std::optional<PlacedTable>& table) const {
    SaveHeader header = *image_.header();
    header.extension.reset();
    header.version = to_ == FixedOffsetKind::kLibvirtSparse ? 2 : 3;
    if (header.version == 2) return header;
    HeaderExtension& extension = header.extension.emplace();
    extension.stream_end = image_.stream_end();
    if (table) {
      extension.integrity_offset = table->offset;
      extension.integrity_length = table->length;
    }
    std::vector<std::byte> before_stream(image_.before_stream().begin(), image_.before_stream().end());
    std::ranges::copy(EncodeSaveHeader(header), before_stream.begin());
    extension.header_hash = HashBeforeStream(before_stream);
    return header;
  }

  void CutOff(FileOffset end) const {
    if (::ftruncate(file_.buffered.number(), static_cast<off_t>(end.value())) != 0) {
      throw Error::FromErrno(fmt::format("cannot shorten {}", image_.path()), errno, "it is whole all the same");
    }
    SyncData(file_.buffered);
  }

  const EnvelopeFile& file_;
  const Image& image_;
  FixedOffsetKind to_;
};

}  // namespace

ByteCount ChangeEnvelope(const EnvelopeFile& file, const Image& image, FixedOffsetKind to, const WriteOptions& options,
                         Progress& progress, const Interrupt& interrupt) {
  return EnvelopeChange(file, image, to).Run(options, progress, interrupt);
}

}  // namespace vmsave
