#include "reader/image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "format/bytes.h"
#include "io/direct_alignment.h"
#include "reader/decompressed_source.h"
#include "reader/metadata_damage.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMaxTableBytesBesidesHashes = 2 << 20;  // ranges, names and lengths of as many blocks as can be
constexpr std::uint64_t kMaxExplainedBytes = 256 << 20;

// An absent page takes no byte in a sequential stream and a bit in a bitmap, which may lie in a hole; but at least a
// bit of memory in whoever reads it, and more in whoever converts it. Guests that leave out most of their pages
// (virtio-mem, free page hints) stay far below this.
constexpr std::uint64_t kMaxRamPerDataByte = 1 << 20;

// The zeros of device state may be holes, where a file was copied sparsely: so many are taken, and more where there is
// as much more data.
constexpr ByteCount kDeviceStateInHoles{64 << 20};
constexpr std::uint64_t kMaxDeviceStatePerDataByte = 64;

constexpr ByteCount kLongTable{16 << 20};

struct FileExtent {
  FileOffset offset;
  ByteCount length;
};

// A table that was made up may have ranges that take hours to read.
bool AreShort(const std::vector<HashedRange>& ranges) {
  std::uint64_t left = kMaxExplainedBytes;
  for (const HashedRange& range : ranges) {
    if (range.length.value() > left) return false;
    left -= range.length.value();
  }
  return true;
}

ImageKind KindOf(const SaveHeader& header) {
  if (header.version == 3) return ImageKind::kVersion3;
  if (header.format == BodyFormat::kSparse) return ImageKind::kLibvirtSparse;
  return header.format == BodyFormat::kRaw ? ImageKind::kStream : ImageKind::kCompressed;
}

}  // namespace

std::string_view ImageKindName(ImageKind kind) {
  constexpr std::string_view kNames[] = {"save image, sequential stream",
                                         "save image, compressed stream",
                                         "save image, fixed offsets",
                                         "libvirt sparse image, fixed offsets",
                                         "bare QEMU stream",
                                         "bare QEMU mapped-ram file"};
  return kNames[static_cast<int>(kind)];
}

Image::Image(const std::string& path) : path_(path), file_(OpenImageFile(path, O_RDONLY)), length_(FileLength(file_)) {
  try {
    ReadHead();
    stream_end_ = FileOffset{length_.value()};
    ReadIntegrityTable();
    ReadStream();
  } catch (const Error& error) {
    const Damage damage = error.kind() == ErrorKind::kDamaged ? FindMetadataDamage() : std::nullopt;
    if (!damage) throw;
    Refuse(fmt::format("{}; {}", error.why(), *damage));
  }
}

// What makes no sense was often right when it was written: then a checksum tells where to look.
std::optional<std::string> Image::FindMetadataDamage() const {
  if (!header_) return std::nullopt;
  if (Damage damage = FindHeaderDamage(*header_, before_stream_)) return damage;
  return integrity_ && AreShort(integrity_->ranges) ? FindRangeDamage(*integrity_, file_) : std::nullopt;
}

void Image::Refuse(std::string_view why, std::string_view advice) const {
  throw Error(ErrorKind::kDamaged, fmt::format("cannot use {}", path_), why, advice);
}

bool Image::has_fixed_offsets() const {
  return kind_ == ImageKind::kVersion3 || kind_ == ImageKind::kLibvirtSparse || kind_ == ImageKind::kBareMappedRam;
}

void Image::ReadHead() {
  std::optional<ImageHead> head = ReadImageHead(file_);
  if (!head) return RequireBareStream();
  header_ = head->header;
  kind_ = KindOf(*header_);
  stream_start_ = header_->stream_start();
  length_ = head->image_length;
  edit_ = head->edit;
  before_stream_ = std::move(head->before_stream);
  description_ = DecodeDescription(std::span(before_stream_).subspan(kSaveHeaderBytes), path_);
}

void Image::RequireBareStream() const {
  std::array<std::byte, 4> magic{};
  if (ReadUpTo(file_, magic, FileOffset{0}) < magic.size() || GetBigEndian<std::uint32_t>(magic) != kStreamMagic) {
    Refuse("it is neither a save image nor a QEMU stream");
  }
}

void Image::ReadIntegrityTable() {
  if (kind_ != ImageKind::kVersion3) return;
  const HeaderExtension& extension = *header_->extension;
  if (extension.stream_end < stream_start_) Refuse("its stream ends before it starts");
  stream_end_ = extension.stream_end;
  if (extension.integrity_length == ByteCount{0}) return;
  if (extension.integrity_offset < stream_end_) Refuse("its integrity table overlaps its stream");
  // A hash takes 8 bytes and is of a page at least; all pages lie in front of the stream's end.
  const std::uint64_t pages = std::min(stream_end_.value(), MostRam().value()) / kPageBytes;
  if (extension.integrity_length.value() > pages * 8 + kMaxTableBytesBesidesHashes) {
    Refuse("its integrity table is longer than its pages can need");
  }
  if (extension.integrity_length > kLongTable) CheckLongTable(extension);
  std::vector<std::byte> table(extension.integrity_length.value());
  ReadAt(file_, table, extension.integrity_offset);
  integrity_ = DecodeIntegrityTable(table, path_);
}

// Before memory is taken for all of it: it may be a hole.
void Image::CheckLongTable(const HeaderExtension& extension) const {
  std::array<std::byte, kTableHeadBytes> head{};
  std::array<std::byte, kTableHashBytes> hash{};
  const ByteCount hashed = extension.integrity_length - ByteCount{kTableHashBytes};
  ReadAt(file_, head, extension.integrity_offset);
  CheckTableHead(head, path_);
  ReadAt(file_, hash, extension.integrity_offset + hashed);
  if (HashOf(file_, extension.integrity_offset, hashed) == GetLittleEndian<std::uint64_t>(hash)) return;
  Refuse("the checksum of its integrity table is wrong");
}

void Image::ReadStream() {
  if (kind_ == ImageKind::kCompressed) return ReadCompressedHead();
  FileSource source(file_, stream_start_, stream_end_);
  contents_ = ReadStreamHead(source, {.most_ram = MostRam()});
  const bool mapped = contents_.has_mapped_ram();
  if (!header_) kind_ = mapped ? ImageKind::kBareMappedRam : ImageKind::kBareStream;
  if (mapped != has_fixed_offsets()) Refuse("its header and its stream disagree about where its pages are");
  RefuseStreamWithoutRam();
  if (!mapped) return;
  ReadDevices(source.position());
  CheckPagesLieInFile();
  if (integrity_) CheckTableMatchesBlocks();
}

// Version 3 says where its stream ends; behind another's, bytes may follow that are not QEMU's, or a hole.
void Image::ReadDevices(FileOffset begin) {
  const bool end_is_told = kind_ == ImageKind::kVersion3;
  if (!end_is_told) {
    const FileOffset data_end = EndOfData(file_, {begin, stream_end_});
    // A stream may end with zeros (EOF is one), which may lie in the hole.
    stream_end_ = data_end == begin ? begin : std::min(stream_end_, data_end + kPageSize);
  }
  RefuseMoreHolesThanDevices({begin, stream_end_});
  FileSource source(file_, begin, stream_end_);
  device_state_ = ReadDeviceState(source);
  if (!end_is_told) device_state_.resize(FindStreamEnd(device_state_).value_or(device_state_.size()));
  stream_end_ = begin + ByteCount{device_state_.size()};
  if (device_state_.empty()) Refuse("it is truncated: it has no device state");
}

void Image::RefuseMoreHolesThanDevices(FileRange rest) const {
  if (rest.end <= rest.begin + kDeviceStateInHoles) return;
  const ByteCount enough{(rest.end - rest.begin).value() / kMaxDeviceStatePerDataByte};
  if (CountData(file_, rest, enough) < enough) Refuse("its device state is hardly more than a hole");
}

void Image::ReadCompressedHead() {
  const Interrupt never;
  DecompressedSource source(std::make_unique<FileSource>(file_, stream_start_, stream_end_), header_->format, never);
  contents_ = ReadStreamHead(source, {.most_ram = MostRam()});
  if (contents_.has_mapped_ram()) Refuse("fixed offsets cannot be compressed, but its stream has them");
  RefuseStreamWithoutRam();
}

void Image::RefuseStreamWithoutRam() const {
  if (contents_.HasCapability(kIgnoreSharedCapability)) Refuse("it was saved with x-ignore-shared: it holds no RAM");
}

ByteCount Image::MostRam() const {
  constexpr ByteCount kEnough{kMostRam.value() / kMaxRamPerDataByte};
  const ByteCount data = CountData(file_, {stream_start_, stream_end_}, kEnough);
  return data < kEnough ? ByteCount{data.value() * kMaxRamPerDataByte} : kMostRam;
}

void Image::CheckPagesLieInFile() const {
  for (const StreamBlock& block : contents_.blocks) {
    if (block.mapped_ram->pages_offset + block.length > FileOffset{length_.value()}) {
      Refuse(fmt::format("it is truncated: the pages of RAM block {} lie behind its end", block.name));
    }
  }
}

// A table that leaves something out would let damage there pass.
void Image::CheckTableMatchesBlocks() const {
  const auto same_block = [](const StreamBlock& block, const HashedBlock& hashed) {
    return block.name == hashed.name && block.length == hashed.length;
  };
  if (!std::ranges::equal(contents_.blocks, integrity_->blocks, same_block)) {
    Refuse("its integrity table is of other RAM blocks than its stream");
  }
  FileOffset begin = stream_start_;
  std::vector<FileExtent> metadata;
  for (const StreamBlock& block : contents_.blocks) {
    metadata.push_back({begin, block.mapped_ram->bitmap_offset + ByteCount{BitmapBytes(block.pages())} - begin});
    begin = block.mapped_ram->pages_offset + block.length;
  }
  metadata.push_back({begin, stream_end_ - begin});
  const auto same_extent = [](const FileExtent& extent, const HashedRange& hashed) {
    return extent.offset == hashed.offset && extent.length == hashed.length;
  };
  if (!std::ranges::equal(metadata, integrity_->ranges, same_extent)) {
    Refuse("its integrity table does not cover its block list, bitmaps and device state");
  }
}

ByteCount Image::disk_usage() const {
  struct stat status {};
  if (::fstat(file_.number(), &status) != 0) throw Error::FromErrno(fmt::format("cannot look at {}", path_), errno);
  return ByteCount{static_cast<std::uint64_t>(status.st_blocks) * 512};
}

FileDescriptor Image::OpenForPages(CacheUse cache) const {
  // By way of the open descriptor, so that it is the same file whatever happened to its name.
  const std::string same_file = fmt::format("/proc/self/fd/{}", file_.number());
  if (cache == CacheUse::kPageCache) return OpenFile(same_file, O_RDONLY).Renamed(path_);
  FileDescriptor direct = OpenDirectAt(FileDescriptor(), same_file, O_RDONLY, path_);
  AskDirectAlignment(direct);  // refuses one that images are not aligned for
  return direct;
}

AlignmentSource Image::alignment_source() const {
  return AskDirectAlignment(OpenForPages(CacheUse::kBypass)).source;
}

}  // namespace vmsave
