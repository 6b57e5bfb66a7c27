// QEMU's stream up to the device state and behind it, from a file and from a socket.
#include <algorithm>
#include <array>
#include <optional>

#include "format/stream_reader.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

class FuzzSource : public ByteSource {
 public:
  // A file skips for nothing, also past its end; a socket brings few bytes at a time.
  enum class Kind { kFile, kSocket };

  FuzzSource(std::span<const std::byte> bytes, Kind kind) : bytes_(bytes), kind_(kind) {}

  std::size_t ReadSome(std::span<std::byte> out) override {
    if (position_ >= bytes_.size()) return 0;
    const std::size_t most = kind_ == Kind::kSocket ? kSocketPiece : out.size();
    const auto rest = bytes_.subspan(position_);
    const auto piece = rest.first(std::min({out.size(), most, rest.size()}));
    std::ranges::copy(piece, out.begin());
    position_ += piece.size();
    return piece.size();
  }
  FileOffset position() const override { return FileOffset{position_}; }
  void SkipTo(FileOffset target) override {
    Require(target.value() >= position_);
    if (kind_ == Kind::kSocket) {
      ByteSource::SkipTo(target);
    } else {
      position_ = target.value();
    }
  }
  void StepBack() override {
    Require(position_ > 0);
    --position_;
  }
  std::string_view name() const override { return "fuzz"; }

 private:
  static constexpr std::size_t kSocketPiece = 3;

  std::span<const std::byte> bytes_;
  Kind kind_;
  std::uint64_t position_ = 0;
};

// Believes nothing of what it is promised.
class CheckingSink : public PageSink {
 public:
  void OnBlocks(const StreamContents& contents) override {
    Require(!pages_ && !contents.blocks.empty());
    pages_.emplace();
    for (const StreamBlock& block : contents.blocks) {
      Require(!block.name.empty() && block.length.value() != 0 && block.length.value() % kPageBytes == 0);
      Require(block.mapped_ram.has_value() == contents.has_mapped_ram());
      Require(!block.mapped_ram || block.present.pages() == block.pages());
      pages_->push_back(block.pages());
    }
  }
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    Check(block, page);
    return page.value() % 2 == 0 ? std::span<std::byte>() : page_;
  }
  void OnZeroPage(std::size_t block, PageIndex page) override { Check(block, page); }
  void OnMultifdFlush() override { Require(pages_.has_value()); }

 private:
  void Check(std::size_t block, PageIndex page) const {
    Require(pages_ && block < pages_->size() && page.value() < (*pages_)[block]);
  }

  std::optional<std::vector<std::uint64_t>> pages_;  // of each block
  std::array<std::byte, kPageBytes> page_{};
};

void ReadStream(std::span<const std::byte> bytes, FuzzSource::Kind kind, const StreamDialect& dialect) {
  FuzzSource whole(bytes, kind);
  CheckingSink sink;
  StreamContents contents;
  const bool taken = Takes([&] { contents = ReadStreamUpToDevices(whole, sink, dialect); });
  if (taken) {
    Require(contents.block_shapes().size() == contents.blocks.size());
    const FileOffset devices = whole.position();
    const std::vector<std::byte> state = ReadDeviceState(whole);
    Require(devices.value() > bytes.size() || state.size() == bytes.size() - devices.value());
  }
  if (dialect.tells_ignored_blocks) return;  // only from QEMU itself
  FuzzSource head(bytes, kind);
  StreamContents known;
  if (Takes([&] { known = ReadStreamHead(head); }) && taken) Require(known.blocks.size() == contents.blocks.size());
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  const auto kind = (input.choice & 1) == 0 ? vmsave::FuzzSource::Kind::kFile : vmsave::FuzzSource::Kind::kSocket;
  vmsave::ReadStream(input.bytes, kind, {.tells_ignored_blocks = (input.choice & 2) != 0});
  return 0;
}
