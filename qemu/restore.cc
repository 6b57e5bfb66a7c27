#include "qemu/restore.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "qemu/descriptor_set.h"
#include "qemu/guest_facts.h"
#include "qemu/guest_pause.h"
#include "qemu/migration_channel.h"
#include "qemu/migration_settings.h"
#include "qemu/migration_status.h"
#include "qemu/restore_checks.h"
#include "qemu/restore_guard.h"
#include "qemu/socket_sink.h"
#include "reader/memory_loader.h"
#include "reader/stream_sender.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStatusPoll = std::chrono::milliseconds(2);
constexpr auto kWhileLoading = std::chrono::hours(24 * 7);
constexpr std::string_view kSeeQemu = "QEMU's own message says why";

// Waits until QEMU has loaded what it was sent.
void WaitLoaded(QmpClient& qmp) {
  // QEMU answers nothing while it reads fixed offsets, however long that takes. The operator can end it.
  qmp.SetTimeout(kWhileLoading);
  WaitMigrationCompleted(qmp, "cannot load the guest", kSeeQemu);
  while (QueryStatus(qmp) == "inmigrate") std::this_thread::sleep_for(kStatusPoll);
  qmp.SetTimeout(kPatienceWithDisks);
}

class Restore {
 public:
  Restore(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
          const Interrupt& interrupt, RestoreGuard* guard)
      : qmp_(qmp),
        image_(image),
        options_(options),
        wish_(options.wish),
        progress_(progress),
        interrupt_(interrupt),
        guard_(guard) {}

  RestoreSummary Run() {
    const Clock::time_point start = Clock::now();
    const GuestFacts guest = QueryGuest(qmp_);
    CheckQemuFits(image_, qmp_, guest);
    guest_uuid_ = guest.uuid;
    choice_ = ChooseWay(qmp_, image_, wish_, interrupt_,
                        guard_ == nullptr ? PrivateDirectory::Announce() : guard_->AnnounceDirectory());
    summary_.way = choice_.way;
    summary_.why_not_faster = choice_.why_not_faster;
    LoadOrTellThatQemuEnded();
    Resume();
    summary_.elapsed = Clock::now() - start;
    summary_.ram = image_.contents().ram_length();
    return summary_;
  }

 private:
  void Load() {
    if (summary_.way == RestoreWay::kMemory) LoadIntoMemory();
    if (summary_.way == RestoreWay::kNative) LoadNatively();
    if (summary_.way == RestoreWay::kMultifd) LoadOverMultifd();
    if (summary_.way == RestoreWay::kStream) LoadAsStream();
  }

  // A QEMU without -S would start a guest that ran when it was saved, as soon as it has it. While QEMU waits for a
  // guest this stops nothing yet (monitor/qmp-cmds.c).
  void HoldGuest() { qmp_.Execute("stop"); }

  // A QEMU that ends in the middle shows itself as one failure or another; its own message tells the reason.
  void LoadOrTellThatQemuEnded() {
    try {
      Load();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFailed || !qmp_.closed()) throw;
      throw Error(ErrorKind::kFailed, "cannot load the guest", "QEMU ended while it was given the image", kSeeQemu);
    }
  }

  // RAM first, through a mapping of our own. Then a stream that has no page of it: QEMU leaves RAM that it is sent no
  // page of as it is.
  void LoadIntoMemory() {
    CheckBackendsFit(image_, choice_.ram);
    std::vector<LoadTarget> targets;
    targets.reserve(image_.contents().blocks.size());
    std::vector<MemoryMapping> private_memory;
    for (const StreamBlock& block : image_.contents().blocks) {
      const auto mapped = std::ranges::find(choice_.ram, block.name, &MappedBackend::block_name);
      if (mapped != choice_.ram.end()) {
        targets.push_back({mapped->memory.bytes(), &mapped->file, mapped->start_in_file});
      } else {
        private_memory.push_back(MemoryMapping::Anonymous(block.length));
        targets.push_back({private_memory.back().bytes(), nullptr, FileOffset{0}});
      }
    }
    const LoadedRam loaded = LoadImage(image_, targets, wish_.read, wish_.checks, progress_, interrupt_);
    summary_.present = CountPresent(loaded.contents);
    progress_.Begin("device state", ByteCount{0});
    std::vector<BlockMemory> to_send;
    to_send.reserve(targets.size());
    for (const LoadTarget& target : targets) {
      to_send.push_back(target.backing != nullptr ? BlockMemory{} : BlockMemory{target.memory});
    }
    SendOverChannel([&](ByteSink& sink) { SendFromMemory(loaded.contents, to_send, loaded.device_state, sink); });
  }

  void LoadAsStream() {
    SendOverChannel([&](ByteSink& sink) { SendImage(image_, sink, wish_.read, wish_.checks, progress_, interrupt_); });
    // Nobody looks into a sequential stream, which goes as it is.
    if (image_.has_fixed_offsets()) summary_.present = CountPresent(image_.contents());
  }

  void LoadOverMultifd() {
    HoldGuest();
    choice_.multifd->Connect(guest_uuid_);
    MultifdTarget target = choice_.multifd->target();
    target.zero_blocks = choice_.zero_blocks;
    summary_.present =
        CountPresent(SendImageOverMultifd(image_, target, wish_.read, wish_.checks, progress_, interrupt_));
    choice_.multifd->ShutDownSending();
    WaitLoaded(qmp_);
    choice_.multifd.reset();
  }

  template <class Send>
  void SendOverChannel(const Send& send) {
    const MigrationSettings settings(qmp_, {}, OnFailure::kLeave);
    MigrationChannel channel(qmp_);
    HoldGuest();
    qmp_.Execute("migrate-incoming", {{"uri", channel.uri()}});
    SocketSink sink(channel.socket(), interrupt_);
    send(sink);
    channel.ShutDownSending();
    WaitLoaded(qmp_);
  }

  void LoadNatively() {
    MigrationSettings settings(qmp_, {std::string(kMappedRamCapability), "multifd"}, OnFailure::kLeave);
    settings.SetParameter("multifd-channels", std::min(wish_.read.channels, kMaxMultifdChannels));
    DescriptorSet descriptors(qmp_, OnFailure::kLeave);
    descriptors.Add(image_.OpenForPages(CacheUse::kPageCache));
    if (wish_.read.cache == CacheUse::kBypass) {
      descriptors.Add(image_.OpenForPages(CacheUse::kBypass));
      settings.SetParameter("direct-io", true);
    }
    progress_.Begin("QEMU is loading", ByteCount{0});
    HoldGuest();
    qmp_.Execute("migrate-incoming",
                 {{"uri", fmt::format("file:{},offset={}", descriptors.path(), image_.stream_start().value())}});
    WaitLoaded(qmp_);
    summary_.present = CountPresent(image_.contents());
    summary_.pages_unchecked = image_.integrity().has_value() && !wish_.pages_verified;
  }

  static ByteCount CountPresent(const StreamContents& contents) {
    ByteCount present;
    for (const StreamBlock& block : contents.blocks) present += PagesToBytes(PageIndex{block.present.CountSet()});
    return present;
  }

  // Not interrupted: a guest that was told to run may run, and must not be ended with its QEMU.
  void Resume() {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    summary_.running = options_.run.value_or(image_.was_running());
    if (guard_ != nullptr) guard_->NoteLoaded(qmp_, summary_.running);
    try {
      LetRun(qmp_, summary_.running);
    } catch (const std::exception&) {
      if (guard_ != nullptr) guard_->NoteNotRunning();
      throw;
    }
  }

  QmpClient& qmp_;
  const Image& image_;
  const RestoreOptions& options_;
  const RestoreWish& wish_;
  Progress& progress_;
  const Interrupt& interrupt_;
  RestoreGuard* guard_;
  std::string guest_uuid_;
  WayChoice choice_;
  RestoreSummary summary_;
};

}  // namespace

RestoreSummary RestoreGuest(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
                            const Interrupt& interrupt, RestoreGuard* guard) {
  return Restore(qmp, image, options, progress, interrupt, guard).Run();
}

}  // namespace vmsave
