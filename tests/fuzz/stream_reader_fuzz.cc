// QEMU's stream up to the device state and behind it, from a file and from a socket.
#include <array>
#include <optional>

#include "format/stream_reader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/span_source.h"

namespace vmsave {
namespace {

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

void ReadStream(std::span<const std::byte> bytes, SpanSource::Kind kind, const StreamOrigin& origin) {
  SpanSource whole(bytes, kind);
  CheckingSink sink;
  StreamContents contents;
  const bool taken = Takes([&] { contents = ReadStreamUpToDevices(whole, sink, origin); });
  if (taken) {
    Require(contents.block_shapes().size() == contents.blocks.size());
    const FileOffset devices = whole.position();
    const std::vector<std::byte> state = ReadDeviceState(whole);
    Require(devices.value() > bytes.size() || state.size() == bytes.size() - devices.value());
  }
  if (origin.tells_ignored_blocks) return;  // only from QEMU itself
  SpanSource head(bytes, kind);
  StreamContents known;
  if (Takes([&] { known = ReadStreamHead(head); }) && taken) Require(known.blocks.size() == contents.blocks.size());
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  const auto kind = (input.choice & 1) == 0 ? vmsave::SpanSource::Kind::kFile : vmsave::SpanSource::Kind::kSocket;
  vmsave::ReadStream(input.bytes, kind, {.tells_ignored_blocks = (input.choice & 2) != 0});
  return 0;
}
