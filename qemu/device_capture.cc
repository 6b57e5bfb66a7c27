#include "qemu/device_capture.h"

#include <fmt/format.h>

#include <algorithm>

#include "qemu/stream_receiver.h"

namespace vmsave {
namespace {

// Keeps the pages of private blocks and makes sure that QEMU sent them all.
class PrivatePages : public PageSink {
 public:
  explicit PrivatePages(const std::set<std::string>& mapped) : mapped_(mapped) {}

  void OnBlocks(const StreamContents& contents) override {
    for (const StreamBlock& block : contents.blocks) {
      const bool is_mapped = mapped_.contains(block.name);
      names_.push_back(block.name);
      memory_.push_back(is_mapped ? MemoryMapping() : MemoryMapping::Anonymous(block.length));
      seen_.emplace_back(is_mapped ? 0 : block.pages());
    }
  }

  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    if (memory_[block].bytes().empty()) return {};
    seen_[block].Set(page.value());
    return memory_[block].bytes().subspan(PagesToBytes(page).value(), kPageBytes);
  }

  void OnZeroPage(std::size_t block, PageIndex page) override {
    const std::span<std::byte> target = PageTarget(block, page);
    std::ranges::fill(target, std::byte{0});
  }

  std::vector<MemoryMapping> TakeMemory() {
    for (std::size_t block = 0; block < seen_.size(); ++block) {
      if (seen_[block].CountSet() == seen_[block].pages()) continue;
      throw Error(ErrorKind::kFailed, fmt::format("cannot save RAM block {}", names_[block]),
                  "QEMU takes it for shared memory, but it is none of its memory backends");
    }
    return std::move(memory_);
  }

 private:
  const std::set<std::string>& mapped_;
  std::vector<std::string> names_;
  std::vector<MemoryMapping> memory_;
  std::vector<PageBitmap> seen_;
};

}  // namespace

CapturedState CaptureDevices(QmpClient& qmp, const std::set<std::string>& mapped, ByteCount most_ram,
                             const Interrupt& interrupt, SaveGuard* guard) {
  OutgoingMigration migration(qmp, {std::string(kIgnoreSharedCapability)}, MigrationLimits(), {}, guard);
  PrivatePages pages(mapped);
  CapturedState state;
  const auto receive = [&](SocketReader& reader) {
    SocketSource source(reader);
    const bool is_qemu_4_0 = qmp.version().major == 4 && qmp.version().minor == 0;
    state.contents = ReadStreamUpToDevices(source, pages, {is_qemu_4_0, most_ram});
    state.device_state = ReadDeviceState(source);
  };
  Progress of_milliseconds;
  ReceiveStream(qmp, migration, receive, of_milliseconds, interrupt);
  state.private_memory = pages.TakeMemory();
  return state;
}

}  // namespace vmsave
