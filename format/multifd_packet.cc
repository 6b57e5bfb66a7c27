#include "format/multifd_packet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/bytes.h"

namespace vmsave {
namespace {

// Where the fields of hello and packet lie.
constexpr std::size_t kMagicAt = 0;
constexpr std::size_t kVersionAt = 4;
constexpr std::size_t kUuidAt = 8;
constexpr std::size_t kChannelAt = 24;

constexpr std::size_t kFlagsAt = 8;
constexpr std::size_t kPagesAllocatedAt = 12;
constexpr std::size_t kNormalPagesAt = 16;
constexpr std::size_t kPayloadAt = 20;
constexpr std::size_t kNumberAt = 24;
constexpr std::size_t kZeroPagesAt = 32;
constexpr std::size_t kReservedAt = 36;
constexpr std::size_t kNameAt = 64;

template <class Int>
Int FieldAt(std::span<const std::byte> bytes, std::size_t at) {
  return GetBigEndian<Int>(bytes.subspan(at, sizeof(Int)));
}

template <class Int>
void PutFieldAt(std::span<std::byte> bytes, std::size_t at, Int value) {
  PutBigEndian<Int>(bytes.subspan(at, sizeof(Int)), value);
}

void CheckStart(std::span<const std::byte> bytes, std::size_t length, std::string_view what) {
  if (bytes.size() != length) {
    throw Error(ErrorKind::kDamaged, what, fmt::format("it has {} bytes instead of {}", bytes.size(), length));
  }
  const auto magic = FieldAt<std::uint32_t>(bytes, kMagicAt);
  if (magic != kMultifdMagic) {
    throw Error(ErrorKind::kDamaged, what,
                fmt::format("it starts with {:08x} instead of {:08x}", magic, kMultifdMagic));
  }
  const auto version = FieldAt<std::uint32_t>(bytes, kVersionAt);
  if (version != kMultifdVersion) {
    throw Error(ErrorKind::kDamaged, what, fmt::format("version {} is not known; {} is", version, kMultifdVersion));
  }
}

std::string_view CompressionName(std::uint32_t method) {
  switch (method) {
    case 1:
      return "zlib";
    case 2:
      return "zstd";
    case 4:
      return "qpl";
    case 8:
      return "uadk";
    case 16:
      return "qatzip";
    default:
      return "an unknown method";
  }
}

}  // namespace

std::array<std::byte, kMultifdHelloBytes> EncodeMultifdHello(const MultifdHello& hello) {
  std::array<std::byte, kMultifdHelloBytes> bytes{};
  PutFieldAt(bytes, kMagicAt, kMultifdMagic);
  PutFieldAt(bytes, kVersionAt, kMultifdVersion);
  std::memcpy(bytes.data() + kUuidAt, hello.uuid.data(), hello.uuid.size());
  PutFieldAt(bytes, kChannelAt, hello.channel);
  return bytes;
}

MultifdHello DecodeMultifdHello(std::span<const std::byte> bytes) {
  CheckStart(bytes, kMultifdHelloBytes, "hello of a multifd channel");
  MultifdHello hello;
  std::memcpy(hello.uuid.data(), bytes.data() + kUuidAt, hello.uuid.size());
  hello.channel = FieldAt<std::uint8_t>(bytes, kChannelAt);
  return hello;
}

void MultifdPacket::Start(std::uint64_t number, std::string_view block) {
  sync_ = false;
  number_ = number;
  normal_ = 0;
  zero_ = 0;
  name_.fill('\0');
  std::ranges::copy(block, name_.begin());
}

void MultifdPacket::AddNormal(PageIndex page) {
  pages_[normal_ + zero_] = pages_[normal_];
  pages_[normal_++] = page;
}

void MultifdPacket::AddZero(PageIndex page) {
  pages_[normal_ + zero_] = page;
  ++zero_;
}

void MultifdPacket::CheckPagesWithin(ByteCount block_length) const {
  const std::uint64_t pages = block_length.value() / kPageBytes;
  for (const PageIndex page : std::span(pages_).first(page_count())) {
    if (page.value() >= pages) {
      Refuse(fmt::format("page {} lies beyond the end of block {}, which has {} pages", page.value(), block(), pages));
    }
  }
}

void MultifdPacket::Encode(std::span<std::byte, kMultifdPacketBytes> out) const {
  std::ranges::fill(out, std::byte{0});
  PutFieldAt(out, kMagicAt, kMultifdMagic);
  PutFieldAt(out, kVersionAt, kMultifdVersion);
  PutFieldAt(out, kFlagsAt, sync_ ? multifd_flag::kSync : 0U);
  PutFieldAt(out, kPagesAllocatedAt, static_cast<std::uint32_t>(kMultifdPagesPerPacket));
  PutFieldAt(out, kNormalPagesAt, static_cast<std::uint32_t>(normal_));
  PutFieldAt(out, kPayloadAt, static_cast<std::uint32_t>(payload().value()));
  PutFieldAt(out, kNumberAt, number_);
  PutFieldAt(out, kZeroPagesAt, static_cast<std::uint32_t>(zero_));
  std::memcpy(out.data() + kNameAt, name_.data(), name_.size());
  for (std::size_t i = 0; i < page_count(); ++i) {
    PutFieldAt(out, kMultifdHeaderBytes + 8 * i, pages_[i].value() * kPageBytes);
  }
}

void MultifdPacket::Decode(std::span<const std::byte> bytes) {
  CheckStart(bytes, kMultifdPacketBytes, "multifd packet");
  number_ = FieldAt<std::uint64_t>(bytes, kNumberAt);
  const auto flags = FieldAt<std::uint32_t>(bytes, kFlagsAt);
  if ((flags & multifd_flag::kDeviceState) != 0) Refuse("device state in multifd channels (VFIO) is not supported");
  if (const std::uint32_t method = (flags & multifd_flag::kCompression) >> 1; method != 0) {
    Refuse(fmt::format("compressed multifd ({}) is not supported", CompressionName(method)),
           "set the migration parameter multifd-compression to none");
  }
  if ((flags & ~multifd_flag::kSync) != 0) Refuse(fmt::format("its flags {:#x} are not known", flags));
  sync_ = flags == multifd_flag::kSync;
  DecodeCounts(bytes);
  std::memcpy(name_.data(), bytes.data() + kNameAt, name_.size());
  if (std::ranges::find(name_, '\0') == name_.end()) Refuse("the name of its block has no end");
  if (page_count() != 0 && block().empty()) Refuse("it has pages of a block without a name");
  DecodePages(bytes);
}

void MultifdPacket::DecodeCounts(std::span<const std::byte> bytes) {
  const auto allocated = FieldAt<std::uint32_t>(bytes, kPagesAllocatedAt);
  normal_ = FieldAt<std::uint32_t>(bytes, kNormalPagesAt);
  zero_ = FieldAt<std::uint32_t>(bytes, kZeroPagesAt);
  if (page_count() > kMultifdPagesPerPacket) {
    Refuse(
        fmt::format("it has {} normal and {} zero pages; a packet holds {}", normal_, zero_, kMultifdPagesPerPacket));
  }
  // QEMU >= 9.1 says 0 in packets without pages. Another number would be that of pages of another size.
  if (allocated != kMultifdPagesPerPacket && (allocated != 0 || page_count() != 0)) {
    Refuse(fmt::format("it has room for {} pages instead of {}", allocated, kMultifdPagesPerPacket));
  }
  const auto payload_length = FieldAt<std::uint32_t>(bytes, kPayloadAt);
  if (normal_ != 0 && payload_length != payload().value()) {
    Refuse(fmt::format("{} bytes follow {} pages instead of {}", payload_length, normal_, payload().value()));
  }
  const auto reserved = bytes.subspan(kReservedAt, kNameAt - kReservedAt);
  if (!std::ranges::all_of(reserved, [](std::byte byte) { return byte == std::byte{0}; })) {
    Refuse("it uses fields that are not known", "use a newer vmsave");
  }
}

void MultifdPacket::DecodePages(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < page_count(); ++i) {
    const auto offset = FieldAt<std::uint64_t>(bytes, kMultifdHeaderBytes + 8 * i);
    if (offset % kPageBytes != 0) Refuse(fmt::format("offset {:#x} in block {} is not a page's", offset, block()));
    pages_[i] = PageIndex{offset / kPageBytes};
  }
  CheckPagesDiffer();
}

void MultifdPacket::CheckPagesDiffer() const {
  std::array<PageIndex, kMultifdPagesPerPacket> sorted;
  const auto end = std::copy_n(pages_.begin(), page_count(), sorted.begin());
  std::sort(sorted.begin(), end);
  const auto twice = std::adjacent_find(sorted.begin(), end);
  if (twice != end) Refuse(fmt::format("page {} of block {} comes twice", twice->value(), block()));
}

void MultifdPacket::Refuse(std::string_view why, std::string_view advice) const {
  throw Error(ErrorKind::kDamaged, fmt::format("multifd packet {}", number_), why, advice);
}

}  // namespace vmsave
