#include "qemu/device_capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "qemu/migration_channel.h"
#include "qemu/migration_settings.h"
#include "qemu/migration_status.h"

namespace vmsave {
namespace {

constexpr std::int64_t kUnlimitedBandwidth = std::int64_t{1} << 40;  // bytes/s
constexpr auto kStatusPoll = std::chrono::milliseconds(2);
constexpr auto kCancelTimeout = std::chrono::seconds(30);

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

// Ends a migration that is under way, so that the guest can be continued. Where QEMU does not get it ended, that is
// tried all the same.
void Cancel(QmpClient& qmp) noexcept {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp);
    qmp.Execute("migrate_cancel");
    const auto deadline = std::chrono::steady_clock::now() + kCancelTimeout;
    while (!IsMigrationAtRest(QueryMigrationStatus(qmp)) && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(kStatusPoll);
    }
  } catch (const std::exception&) {
    return;  // whoever undoes the rest will find out what became of QEMU
  }
}

}  // namespace

CapturedState CaptureDevices(QmpClient& qmp, const std::set<std::string>& mapped, const Interrupt& interrupt) {
  MigrationSettings settings(qmp, {std::string(kIgnoreSharedCapability)}, OnFailure::kPutBack);
  settings.SetParameter("max-bandwidth", kUnlimitedBandwidth);
  MigrationChannel channel(qmp);
  try {
    qmp.Execute("migrate", {{"uri", channel.uri()}});
    ChannelSource source(channel, interrupt);
    PrivatePages pages(mapped);
    CapturedState state;
    state.contents = ReadStreamUpToDevices(source, pages);
    state.device_state = ReadDeviceState(source);
    WaitMigrationCompleted(qmp, "cannot get the guest's device state");
    state.private_memory = pages.TakeMemory();
    return state;
  } catch (...) {
    channel.ShutDown();
    Cancel(qmp);
    throw;
  }
}

}  // namespace vmsave
