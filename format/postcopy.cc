#include "format/postcopy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "format/bytes.h"
#include "format/printable.h"

namespace vmsave {
namespace {

enum class Command : std::uint16_t {
  kOpenReturnPath = 1,
  kAdvise = 3,
  kListen = 4,
  kRun = 5,
  kRamDiscard = 6,
  kPackaged = 7,
  kResume = 9,
  kRecvBitmap = 10,
};

// Types of the return path's frames.
constexpr std::uint16_t kShut = 1;
constexpr std::uint16_t kPong = 2;
constexpr std::uint16_t kRequestNamed = 3;
constexpr std::uint16_t kRequest = 4;
constexpr std::uint16_t kBitmap = 5;
constexpr std::uint16_t kResumeAck = 6;

constexpr std::size_t kFrameHeadBytes = 4;
constexpr std::uint32_t kResumeAccepted = 1;
constexpr std::uint64_t kBitmapEnd = 0x0123456789abcdef;
constexpr std::uint8_t kDiscardVersion = 0;

[[noreturn]] void Refuse(const std::string& what_came) {
  throw Error(ErrorKind::kFailed, "cannot serve the guest its memory", what_came, "QEMU does not do that: stop it");
}

void AppendCommand(ByteWriter& out, Command command, std::span<const std::byte> data = {}) {
  out.AppendBigEndian(static_cast<std::uint8_t>(SectionType::kCommand));
  out.AppendBigEndian(static_cast<std::uint16_t>(command));
  out.AppendBigEndian(static_cast<std::uint16_t>(data.size()));
  out.Append(data);
}

void AppendName(ByteWriter& out, std::string_view name) {
  out.AppendBigEndian(static_cast<std::uint8_t>(name.size()));
  out.Append(name);
}

void AppendAdvise(ByteWriter& out, std::span<const PostcopyBlock> blocks) {
  std::uint64_t page_sizes = 0;
  for (const PostcopyBlock& block : blocks) page_sizes |= block.host_page.value();
  ByteWriter data;
  data.AppendBigEndian(page_sizes);
  data.AppendBigEndian(kPageBytes);
  AppendCommand(out, Command::kAdvise, data.Take());
}

void AppendDiscard(ByteWriter& out, const PostcopyBlock& block) {
  ByteWriter data;
  data.AppendBigEndian(kDiscardVersion);
  AppendName(data, block.name);
  data.AppendBigEndian(std::uint8_t{0});  // the name ends with a NUL besides
  data.AppendBigEndian(std::uint64_t{0});
  data.AppendBigEndian(block.length.value());
  AppendCommand(out, Command::kRamDiscard, data.Take());
}

}  // namespace

void AppendPostcopyHead(ByteWriter& out, const StreamFrame& frame, std::span<const PostcopyBlock> blocks) {
  ByteCount total;
  for (const PostcopyBlock& block : blocks) total += block.length;
  AppendStreamHeader(out, frame, {});
  AppendCommand(out, Command::kOpenReturnPath);
  AppendAdvise(out, blocks);
  AppendRamStart(out, frame, total);
  for (const PostcopyBlock& block : blocks) {
    AppendBlockEntry(out, block.name, block.length);
    if (block.host_page != kPageSize) out.AppendBigEndian(block.host_page.value());
  }
  AppendRamSectionEnd(out, frame);
  for (const PostcopyBlock& block : blocks) AppendDiscard(out, block);
}

void AppendPostcopyStart(ByteWriter& out, std::span<const std::byte> devices) {
  ByteWriter package;
  AppendCommand(package, Command::kListen);
  package.Append(devices);
  AppendCommand(package, Command::kRun);
  ByteWriter length;
  length.AppendBigEndian(static_cast<std::uint32_t>(package.size()));
  AppendCommand(out, Command::kPackaged, length.Take());
  out.Append(package.Take());
}

// The last place that fits: a device's buffer can hold bytes that look like EOF and VMDESCRIPTION, but the description
// has no zero byte in it.
std::optional<std::span<const std::byte>> DeviceSections(std::span<const std::byte> device_state) {
  constexpr std::size_t kPrefix = 6;  // EOF, VMDESCRIPTION, u32 length
  for (std::size_t at = device_state.size(); at-- > 0;) {
    if (device_state[at] != std::byte{0}) continue;
    if (at + 1 == device_state.size()) continue;
    if (device_state[at + 1] != static_cast<std::byte>(SectionType::kVmDescription)) continue;
    if (at + kPrefix > device_state.size()) continue;
    if (GetBigEndian<std::uint32_t>(device_state.subspan(at + 2)) != device_state.size() - at - kPrefix) continue;
    return device_state.first(at);
  }
  if (device_state.empty() || device_state.back() != std::byte{0}) return std::nullopt;
  return device_state.first(device_state.size() - 1);
}

void AppendPostcopyRecovery(ByteWriter& out, std::span<const PostcopyBlock> blocks) {
  AppendCommand(out, Command::kOpenReturnPath);
  for (const PostcopyBlock& block : blocks) {
    ByteWriter name;
    AppendName(name, block.name);
    AppendCommand(out, Command::kRecvBitmap, name.Take());
  }
  AppendCommand(out, Command::kResume);
}

void AppendPostcopyEnd(ByteWriter& out, const StreamFrame& frame) {
  out.AppendBigEndian(static_cast<std::uint8_t>(SectionType::kEnd));
  out.AppendBigEndian(frame.ram_section_id);
  AppendRamSectionEnd(out, frame);
  out.AppendBigEndian(static_cast<std::uint8_t>(SectionType::kEof));
}

void ReturnPathDecoder::Feed(std::span<const std::byte> bytes) {
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::optional<PostcopyAnswer> ReturnPathDecoder::Next() {
  while (true) {
    if (bitmap_follows_) return TakeBitmap();
    const std::span<const std::byte> rest = std::span(bytes_).subspan(taken_);
    if (done_ && !rest.empty()) Refuse("more came from QEMU after it had said that it is done");
    if (rest.size() < kFrameHeadBytes) return std::nullopt;
    const auto type = GetBigEndian<std::uint16_t>(rest);
    const auto length = GetBigEndian<std::uint16_t>(rest.subspan(2));
    if (type < kShut || type > kResumeAck) Refuse(fmt::format("QEMU sent a message of the unknown type {}", type));
    if (rest.size() < kFrameHeadBytes + length) return std::nullopt;
    taken_ += kFrameHeadBytes + length;
    if (std::optional<PostcopyAnswer> answer = Take(type, rest.subspan(kFrameHeadBytes, length))) return answer;
  }
}

// Nothing where there is nothing to tell of it, or not yet.
std::optional<PostcopyAnswer> ReturnPathDecoder::Take(std::uint16_t type, std::span<const std::byte> data) {
  const auto require = [&](bool right_length) {
    if (!right_length) Refuse(fmt::format("QEMU sent a message of type {} with {} bytes", type, data.size()));
  };
  const auto name = [&](std::size_t at) {
    require(data.size() > at && data.size() == at + 1 + std::to_integer<std::size_t>(data[at]));
    return FindBlock(AsText(data.subspan(at + 1)));
  };
  constexpr std::size_t kRangeBytes = 12;
  if (type == kRequestNamed) requested_of_ = name(kRangeBytes);
  if (type == kRequest) require(data.size() == kRangeBytes);
  if (type == kRequestNamed || type == kRequest) {
    return MakeRequest(GetBigEndian<std::uint64_t>(data), GetBigEndian<std::uint32_t>(data.subspan(8)));
  }
  if (type == kBitmap) {
    bitmap_follows_ = name(0);
    return TakeBitmap();
  }
  require(data.size() == 4);
  const auto value = GetBigEndian<std::uint32_t>(data);
  if (type == kPong) return std::nullopt;
  if (type == kResumeAck) {
    if (value != kResumeAccepted) Refuse(fmt::format("QEMU does not go on: it answered {}", value));
    return ResumeAccepted{};
  }
  done_ = true;
  return PostcopyDone{value != 0};
}

std::optional<PostcopyAnswer> ReturnPathDecoder::TakeBitmap() {
  const std::span<const std::byte> rest = std::span(bytes_).subspan(taken_);
  const std::size_t size = PageBitmap::EncodedSize(blocks_[*bitmap_follows_].pages());
  if (rest.size() < 8) return std::nullopt;
  if (const auto told = GetBigEndian<std::uint64_t>(rest); told != size) {
    Refuse(fmt::format("QEMU sent a bitmap of {} bytes for RAM block {}, which has {}", told,
                       blocks_[*bitmap_follows_].name, size));
  }
  if (rest.size() < 8 + size + 8) return std::nullopt;
  if (GetBigEndian<std::uint64_t>(rest.subspan(8 + size)) != kBitmapEnd) {
    Refuse(fmt::format("QEMU sent a bitmap of RAM block {} that does not end as it should",
                       blocks_[*bitmap_follows_].name));
  }
  taken_ += 8 + size + 8;
  const std::size_t block = *std::exchange(bitmap_follows_, std::nullopt);
  return DecodeBitmap(block, rest.subspan(8, size));
}

ReceivedPages ReturnPathDecoder::DecodeBitmap(std::size_t block, std::span<const std::byte> bytes) {
  const PostcopyBlock& of = blocks_[block];
  if (bitmap_came_[block]) Refuse(fmt::format("QEMU sent a second bitmap of RAM block {}", of.name));
  bitmap_came_[block] = true;
  PageBitmap pages(0);
  try {
    pages = PageBitmap::Decode(of.pages(), bytes);
  } catch (const Error& error) {
    Refuse(fmt::format("QEMU sent a bitmap of RAM block {} that is none: {}", of.name, error.why()));
  }
  const std::uint64_t step = of.pages_per_host_page();
  for (std::uint64_t first = 0; step > 1 && first < of.pages(); first += step) {
    if (const std::uint64_t count = pages.CountSet(first, first + step); count != 0 && count != step) {
      Refuse(fmt::format("QEMU sent a bitmap of RAM block {} that has a part of a page of {} bytes", of.name,
                         of.host_page.value()));
    }
  }
  return {block, std::move(pages)};
}

PageRequest ReturnPathDecoder::MakeRequest(std::uint64_t start, std::uint64_t length) {
  if (!requested_of_) Refuse("QEMU asked for pages without a RAM block");
  const PostcopyBlock& block = blocks_[*requested_of_];
  const std::uint64_t host_page = block.host_page.value();
  if (length != host_page || start % host_page != 0 || start >= block.length.value()) {
    Refuse(fmt::format("QEMU asked for {} bytes at {} of RAM block {}, which has {} in pages of {}", length, start,
                       block.name, block.length.value(), host_page));
  }
  return {*requested_of_, {start / kPageBytes, length / kPageBytes}};
}

std::size_t ReturnPathDecoder::FindBlock(std::string_view name) const {
  const auto block = std::ranges::find(blocks_, name, &PostcopyBlock::name);
  if (block == blocks_.end()) Refuse(fmt::format("QEMU spoke of a RAM block {} that is not there", Printable(name)));
  return static_cast<std::size_t>(block - blocks_.begin());
}

}  // namespace vmsave
