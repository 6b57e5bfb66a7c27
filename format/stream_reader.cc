#include "format/stream_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "format/bytes.h"

namespace vmsave {
namespace {

constexpr std::uint32_t kMaxMachineNameBytes = 255;
constexpr std::uint32_t kMaxCapabilities = 64;
constexpr std::size_t kMaxBlocks = 4096;
constexpr std::uint64_t kMaxFileOffset = std::uint64_t{1} << 62;
constexpr ByteCount kMaxGapBeforeBitmap{1 << 20};
constexpr std::size_t kSkipBytes = std::size_t{64} * 1024;

// Walks the sections; keeps what was learned in contents_.
class Walker {
 public:
  Walker(ByteSource& source, PageSink& sink, const StreamOrigin& origin)
      : source_(source), sink_(sink), origin_(origin) {}

  StreamContents Walk() {
    CheckMagic();
    WalkToDevices();
    return std::move(contents_);
  }

  StreamContents WalkHead() {
    CheckMagic();
    while (!started_) {
      if (WalkSection()) Refuse("the stream has no ram section");
    }
    if (contents_.has_mapped_ram()) WalkToDevices();
    return std::move(contents_);
  }

 private:
  [[noreturn]] void Refuse(std::string_view why) const {
    throw Error(ErrorKind::kDamaged,
                fmt::format("cannot read {} at byte {}", source_.name(), source_.position().value()), why);
  }

  void CheckMagic() {
    if (TakeU32() != kStreamMagic || TakeU32() != kStreamVersion) Refuse("there is no QEMU stream");
  }

  template <std::unsigned_integral Int>
  Int Take() {
    std::array<std::byte, sizeof(Int)> bytes{};
    source_.Read(bytes);
    return GetBigEndian<Int>(bytes);
  }
  std::uint8_t TakeU8() { return Take<std::uint8_t>(); }
  std::uint32_t TakeU32() { return Take<std::uint32_t>(); }
  std::uint64_t TakeU64() { return Take<std::uint64_t>(); }

  std::string TakeText(std::size_t length) {
    std::string text(length, '\0');
    source_.Read(std::as_writable_bytes(std::span(text)));
    return text;
  }
  std::string TakeShortString() { return TakeText(TakeU8()); }

  void WalkToDevices() {
    while (!WalkSection()) {
    }
  }

  // True once ram is over.
  bool WalkSection() {
    const std::uint8_t type = next_type_ ? *next_type_ : TakeU8();
    next_type_.reset();
    // Its capabilities say how the block list is read: one that came later would say what was not done.
    const bool at_start = std::exchange(at_start_, false);
    switch (static_cast<SectionType>(type)) {
      case SectionType::kConfiguration:
        if (!at_start) Refuse("a configuration section comes late");
        WalkConfiguration();
        return false;
      case SectionType::kCommand:
        WalkCommand();
        return false;
      case SectionType::kStart:
        WalkStart();
        return false;
      case SectionType::kPart:
      case SectionType::kEnd:
        if (!started_ || TakeU32() != contents_.frame.ram_section_id) Refuse("a section other than ram's goes on here");
        WalkRecords();
        WalkFooter();
        pages_began_ = true;
        return type == static_cast<std::uint8_t>(SectionType::kEnd);
      case SectionType::kFull:
        if (!MayEndWithoutEnd()) WalkEarlySection();
        source_.StepBack();
        return true;
      default:
        Refuse(fmt::format("section type {:#04x} is not expected before the end of ram", type));
    }
  }

  void WalkConfiguration() {
    const std::uint32_t length = TakeU32();
    if (length == 0 || length > kMaxMachineNameBytes) Refuse("the machine type's name is too long");
    contents_.frame.machine = TakeText(length);
    while ((next_type_ = TakeU8()) == static_cast<std::uint8_t>(SectionType::kSubsection)) {
      const std::string name = TakeShortString();
      TakeU32();
      if (name != "configuration/capabilities") Refuse(fmt::format("configuration section \"{}\" is not known", name));
      const std::uint32_t count = TakeU32();
      if (count > kMaxCapabilities) Refuse("there are too many capabilities");
      for (std::uint32_t i = 0; i < count; ++i) contents_.capabilities.push_back(TakeCapability());
    }
  }

  std::string TakeCapability() {
    std::string name = TakeShortString();
    if (name != kMappedRamCapability && name != kIgnoreSharedCapability) {
      Refuse(fmt::format("the stream uses capability \"{}\", which is not known", name));
    }
    return name;
  }

  void WalkCommand() {
    const auto command = Take<std::uint16_t>();
    const auto length = Take<std::uint16_t>();
    if (command == kSwitchoverStart) contents_.frame.switchover_start = true;
    TakeText(length);
  }

  // A background snapshot sends no END: its devices follow the last PART. In front of the first one, a device is an
  // early one (virtio-mem), and all pages are still to come.
  bool MayEndWithoutEnd() const { return pages_began_ && !contents_.has_mapped_ram(); }

  // A device's section cannot be walked without knowing the device.
  [[noreturn]] void WalkEarlySection() {
    TakeU32();
    Refuse(fmt::format("the state of device \"{}\" comes before the end of ram", TakeShortString()));
  }

  void WalkStart() {
    const std::uint32_t id = TakeU32();
    const std::string name = TakeShortString();
    const std::uint32_t instance = TakeU32();
    const std::uint32_t version = TakeU32();
    if (name != "ram") Refuse(fmt::format("iterable section \"{}\" is not supported: only ram is", name));
    if (started_) Refuse("there is a second ram section");
    if (instance != 0 || version != kRamSectionVersion) {
      Refuse(fmt::format("ram section {} of version {} is not known", instance, version));
    }
    started_ = true;
    contents_.frame.ram_section_id = id;
    WalkRecords();
    WalkFooter();
    if (contents_.blocks.empty()) Refuse("the ram section has no block list");
  }

  void WalkFooter() {
    if (TakeU8() != static_cast<std::uint8_t>(SectionType::kFooter) || TakeU32() != contents_.frame.ram_section_id) {
      Refuse("the ram section's footer is wrong");
    }
  }

  void WalkRecords() {
    while (true) {
      const std::uint64_t word = TakeU64();
      const std::uint64_t flags = word & ram_flag::kMask;
      if (flags == ram_flag::kEndOfSection) {
        sink_.OnEndOfRecords();
        return;
      }
      if (flags == ram_flag::kMultifdFlush) {
        if (contents_.blocks.empty()) Refuse("a MULTIFD_FLUSH comes before the block list");
        sink_.OnMultifdFlush();
      } else if (flags == ram_flag::kMemSize) {
        WalkBlockList(ByteCount{word & ~ram_flag::kMask});
      } else {
        WalkPage(word & ~ram_flag::kMask, flags);
      }
    }
  }

  void WalkBlockList(ByteCount total) {
    if (!contents_.blocks.empty()) Refuse("there is a second block list");
    if (total == ByteCount{0}) Refuse("the block list is of no RAM");
    const ByteCount most = std::min(origin_.most_ram, kMostRam);
    if (total > most)
      Refuse(fmt::format("{} bytes of RAM are more than there can be, {}", total.value(), most.value()));
    for (ByteCount left = total; left != ByteCount{0};) {
      if (contents_.blocks.size() == kMaxBlocks) Refuse("there are too many RAM blocks");
      const StreamBlock& block = contents_.blocks.emplace_back(TakeBlock(left));
      left = left - block.length;
      if (block.mapped_ram) source_.SkipTo(block.mapped_ram->pages_offset + block.length);
    }
    sink_.OnBlocks(contents_);
  }

  StreamBlock TakeBlock(ByteCount left) {
    StreamBlock block;
    block.name = TakeShortString();
    block.length = ByteCount{TakeU64()};
    if (block.name.empty()) Refuse("a RAM block has no name");
    if (FindBlock(block.name)) Refuse(fmt::format("RAM block \"{}\" is listed twice", block.name));
    if (block.length.value() == 0 || block.length.value() % kPageBytes != 0 || block.length > left) {
      Refuse(fmt::format("RAM block \"{}\" has a wrong length, {}", block.name, block.length.value()));
    }
    if (contents_.HasCapability(kIgnoreSharedCapability)) TakeAddress(block);
    if (contents_.has_mapped_ram()) TakeMappedRam(block);
    return block;
  }

  void TakeAddress(StreamBlock& block) {
    block.address = GuestAddress{TakeU64()};
    if (origin_.tells_ignored_blocks && TakeU8() > 1) {
      Refuse(fmt::format("RAM block \"{}\" is neither ignored nor not", block.name));
    }
  }

  void TakeMappedRam(StreamBlock& block) {
    std::array<std::byte, kMappedRamHeaderBytes> bytes{};
    source_.Read(bytes);
    const MappedRamHeader header = DecodeMappedRamHeader(bytes, block.name);
    if (header.bitmap_offset.value() > kMaxFileOffset || header.pages_offset.value() > kMaxFileOffset) {
      Refuse(fmt::format("the bitmap or the pages of RAM block \"{}\" lie behind the end of any file", block.name));
    }
    if (header.pages_offset.value() % kPageBytes != 0) {
      Refuse(fmt::format("the pages of RAM block \"{}\" are not aligned in the file", block.name));
    }
    const ByteCount bitmap_length{BitmapBytes(block.pages())};
    if (header.bitmap_offset < source_.position() || header.pages_offset < header.bitmap_offset + bitmap_length) {
      Refuse(fmt::format("the bitmap or the pages of RAM block \"{}\" overlap something else", block.name));
    }
    // A checksum is of all bytes up to the bitmap's end, those of the gap too.
    if (header.bitmap_offset > source_.position() + kMaxGapBeforeBitmap) {
      Refuse(fmt::format("the bitmap of RAM block \"{}\" lies far behind its header", block.name));
    }
    source_.SkipTo(header.bitmap_offset);
    block.present = TakeBitmap(block);
    block.mapped_ram = header;
  }

  MappedRamHeader DecodeMappedRamHeader(std::span<const std::byte> bytes, const std::string& block) const {
    ByteReader reader(bytes, source_.name());
    try {
      return TakeMappedRamHeader(reader, block);
    } catch (const Error& error) {
      Refuse(error.what());
    }
  }

  // Grows with what is really there, so that a short file cannot ask for a large bitmap.
  PageBitmap TakeBitmap(const StreamBlock& block) {
    std::vector<std::byte> bytes;
    for (std::uint64_t left = BitmapBytes(block.pages()); left > 0;) {
      const std::size_t piece = std::min<std::uint64_t>(left, 1 << 20);
      bytes.resize(bytes.size() + piece);
      source_.Read(std::span(bytes).last(piece));
      left -= piece;
    }
    try {
      return PageBitmap::Decode(block.pages(), bytes);
    } catch (const Error& error) {
      Refuse(fmt::format("RAM block \"{}\": {}", block.name, error.what()));
    }
  }

  std::optional<std::size_t> FindBlock(std::string_view name) const {
    const auto found = std::ranges::find(contents_.blocks, name, &StreamBlock::name);
    if (found == contents_.blocks.end()) return std::nullopt;
    return static_cast<std::size_t>(found - contents_.blocks.begin());
  }

  void WalkPage(std::uint64_t offset, std::uint64_t flags) {
    const std::uint64_t kind = flags & ~ram_flag::kContinue;
    if (kind != ram_flag::kPage && kind != ram_flag::kZero)
      Refuse(fmt::format("a record with flags {:#x} is not known", flags));
    if (contents_.has_mapped_ram()) Refuse("a page comes as a record, but the stream is a mapped-ram one");
    if ((flags & ram_flag::kContinue) == 0) {
      const std::string name = TakeShortString();
      block_ = FindBlock(name);
      if (!block_) Refuse(fmt::format("a page is of RAM block \"{}\", which is not in the list", name));
    }
    if (!block_) Refuse("a page is of no RAM block");
    if (offset >= contents_.blocks[*block_].length.value()) {
      Refuse(fmt::format("a page lies behind the end of RAM block \"{}\"", contents_.blocks[*block_].name));
    }
    const PageIndex page{offset / kPageBytes};
    if (kind == ram_flag::kPage) {
      TakePage(page);
    } else if (TakeU8() != 0) {
      Refuse("a page is filled with a byte other than zero");
    } else {
      sink_.OnZeroPage(*block_, page);
    }
  }

  void TakePage(PageIndex page) {
    std::span<std::byte> target = sink_.PageTarget(*block_, page);
    if (target.empty()) {
      source_.SkipTo(source_.position() + kPageSize);
    } else {
      source_.Read(target);
    }
  }

  ByteSource& source_;
  PageSink& sink_;
  StreamOrigin origin_;
  StreamContents contents_;
  std::optional<std::uint8_t> next_type_;
  std::optional<std::size_t> block_;  // of the last record; CONTINUE refers to it, across sections too
  bool at_start_ = true;              // no section was read yet
  bool started_ = false;
  bool pages_began_ = false;  // a PART was read
};

}  // namespace

void ByteSource::SkipTo(FileOffset target) {
  std::array<std::byte, 4096> dropped{};
  for (std::uint64_t left = (target - position()).value(); left > 0;) {
    const std::size_t piece = std::min<std::uint64_t>(left, dropped.size());
    Read(std::span(dropped).first(piece));
    left -= piece;
  }
}

void ByteSource::StepBack() {
  throw Error(ErrorKind::kDamaged, fmt::format("cannot read {} at byte {}", name(), position().value()),
              "its devices come without an end of ram, as in a background snapshot");
}

void ByteSource::Read(std::span<std::byte> out) {
  while (!out.empty()) {
    const std::size_t got = ReadSome(out);
    if (got == 0) {
      throw Error(ErrorKind::kDamaged, fmt::format("cannot read {}", name()),
                  fmt::format("it ends early, after {} bytes", position().value()));
    }
    out = out.subspan(got);
  }
}

bool StreamContents::HasCapability(std::string_view name) const {
  return std::ranges::find(capabilities, name) != capabilities.end();
}

std::vector<BlockShape> StreamContents::block_shapes() const {
  std::vector<BlockShape> shapes;
  for (const StreamBlock& block : blocks) shapes.push_back({block.name, block.length});
  return shapes;
}

ByteCount StreamContents::ram_length() const {
  ByteCount length;
  for (const StreamBlock& block : blocks) length += block.length;
  return length;
}

StreamContents ReadStreamHead(ByteSource& source, const StreamOrigin& origin) {
  PassOverPages sink;
  return Walker(source, sink, origin).WalkHead();
}

StreamContents ReadStreamUpToDevices(ByteSource& source, PageSink& sink, const StreamOrigin& origin) {
  return Walker(source, sink, origin).Walk();
}

std::vector<std::byte> ReadDeviceState(ByteSource& source) {
  const auto refuse_if_large = [&source](std::uint64_t length) {
    if (length <= kMaxDeviceStateBytes) return;
    throw Error(ErrorKind::kDamaged, fmt::format("cannot read {}", source.name()),
                fmt::format("its device state is larger than {} MiB", kMaxDeviceStateBytes >> 20));
  };
  std::vector<std::byte> state;
  if (const std::optional<ByteCount> left = source.Left()) {
    refuse_if_large(left->value());
    state.reserve(left->value());
  }
  std::array<std::byte, kSkipBytes> piece{};
  while (const std::size_t got = source.ReadSome(piece)) {
    refuse_if_large(state.size() + got);
    // Never room for more than may come: the last doubling would be the largest allocation of all.
    if (state.size() + got > state.capacity()) {
      state.reserve(std::min<std::size_t>(std::max(state.size() + got, 2 * state.capacity()), kMaxDeviceStateBytes));
    }
    state.insert(state.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(got));
  }
  return state;
}

}  // namespace vmsave
