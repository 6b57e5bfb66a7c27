#include "qemu/restore.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <thread>

#include "io/sparse_file.h"
#include "qemu/descriptor_set.h"
#include "qemu/guest_facts.h"
#include "qemu/guest_ram.h"
#include "qemu/migration_channel.h"
#include "qemu/migration_settings.h"
#include "qemu/migration_status.h"
#include "qemu/multifd_incoming.h"
#include "qemu/socket_sink.h"
#include "reader/memory_loader.h"
#include "reader/stream_sender.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStatusPoll = std::chrono::milliseconds(2);
constexpr auto kWhileLoading = std::chrono::hours(24 * 7);
constexpr auto kResumeTimeout = std::chrono::minutes(10);  // disks may be slow to come to life
constexpr std::uint64_t kMemoryGranularity = 8192;         // QEMU rounds -m up to this (system/vl.c)
constexpr std::string_view kSeeQemu = "QEMU's own message says why";

[[noreturn]] void Refuse(const Image& image, std::string_view why, std::string_view advice,
                         ErrorKind kind = ErrorKind::kFailed) {
  throw Error(kind, fmt::format("cannot restore {}", image.path()), why, advice);
}

// Exact, so that two sizes that differ look different.
std::string Size(ByteCount bytes) {
  constexpr std::uint64_t kMebibyte = 1 << 20;
  if (bytes.value() % kMebibyte == 0) return fmt::format("{} MiB", bytes.value() / kMebibyte);
  return fmt::format("{} KiB", bytes.value() / 1024);
}

void CheckQemuWaits(QmpClient& qmp, const Image& image) {
  const std::string status = QueryStatus(qmp);
  if (status != "inmigrate") {
    Refuse(image, fmt::format("QEMU does not wait for a guest (its status is {})", status),
           "start it with -incoming defer");
  }
  if (const std::string migration = QueryMigrationStatus(qmp); migration != "none") {
    Refuse(image, fmt::format("QEMU is being given a guest already (status {})", migration),
           "start it with -incoming defer");
  }
}

void CheckMachine(const std::string& machine, const Image& image) {
  const std::string& saved = image.contents().frame.machine;
  if (machine == saved) return;
  Refuse(image, fmt::format("it was saved on machine type {}, QEMU has {}", saved, machine),
         fmt::format("start QEMU with -machine {}", saved), ErrorKind::kDamaged);
}

// Blocks of the image and backends of QEMU must be the same: RAM that nothing is loaded into would hold what it held
// before.
void CheckBlocksMatch(const std::vector<MappedBackend>& ram, const Image& image) {
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  for (const MappedBackend& mapped : ram) {
    const auto block = std::ranges::find(blocks, mapped.block_name, &StreamBlock::name);
    if (block == blocks.end()) {
      Refuse(image, fmt::format("it has no RAM block {}, which QEMU has", mapped.block_name),
             "name the memory backends as the saved guest's", ErrorKind::kDamaged);
    }
    if (block->length != mapped.backend.size) {
      Refuse(image,
             fmt::format("its RAM block {} has {}, QEMU's has {}", block->name, Size(block->length),
                         Size(mapped.backend.size)),
             "give QEMU as much RAM as the saved guest had", ErrorKind::kDamaged);
    }
  }
}

// Whether a backend's file may hold anything from before. True where it cannot be looked at.
bool MayHoldData(const MemoryBackend& backend) {
  if (backend.path.empty() || std::filesystem::is_directory(backend.path)) return false;  // QEMU's own, fresh memory
  try {
    const FileDescriptor file = OpenFile(backend.path, O_RDONLY | O_NONBLOCK);
    return NextData(file, FileOffset{0}, FileOffset{FileLength(file).value()}).has_value();
  } catch (const Error&) {
    return true;
  }
}

// Waits until QEMU has loaded what it was sent.
void WaitLoaded(QmpClient& qmp) {
  // QEMU answers nothing while it reads fixed offsets, however long that takes. The operator can end it.
  qmp.SetTimeout(kWhileLoading);
  WaitMigrationCompleted(qmp, "cannot load the guest", kSeeQemu);
  while (QueryStatus(qmp) == "inmigrate") std::this_thread::sleep_for(kStatusPoll);
  qmp.SetTimeout(kResumeTimeout);
}

// "pc-i440fx-7.2" names one machine type; "pc" and "q35" mean the newest that QEMU has.
bool IsVersioned(const std::string& machine) {
  return machine.find('.') != std::string::npos;
}

class Restore {
 public:
  Restore(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
          const Interrupt& interrupt)
      : qmp_(qmp), image_(image), options_(options), progress_(progress), interrupt_(interrupt) {}

  RestoreSummary Run() {
    const Clock::time_point start = Clock::now();
    image_.RefuseCompressed();
    const GuestFacts guest = QueryGuest(qmp_);
    CheckQemuWaits(qmp_, image_);
    CheckMachine(guest.machine, image_);
    guest_uuid_ = guest.uuid;
    backends_ = QueryMemoryBackends(qmp_);
    ChooseWay();
    LoadOrTellThatQemuEnded();
    Resume();
    summary_.elapsed = Clock::now() - start;
    for (const StreamBlock& block : image_.contents().blocks) summary_.ram += block.length;
    return summary_;
  }

 private:
  // Empty, or why not.
  std::string WhyNot(RestoreWay way) {
    if (way == RestoreWay::kMemory) return WhyNotMemory();
    if (way == RestoreWay::kNative) return WhyNotNative();
    if (way == RestoreWay::kMultifd) return WhyNotOverMultifd();
    return "";
  }

  std::string WhyNotMemory() {
    if (std::string why = WhyNotShared(backends_); !why.empty()) return why;
    try {
      ram_ = MapBackends(qmp_, backends_, MemoryMapping::Access::kReadWrite);
      return "";
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFailed) throw;  // no other way would be right either
      return error.what();
    }
  }

  std::string WhyNotNative() {
    if (!image_.has_fixed_offsets()) return "the image is a sequential stream";
    const std::string version = fmt::format("QEMU {}.{}", qmp_.version().major, qmp_.version().minor);
    if (!QueryCapabilities(qmp_).contains(std::string(kMappedRamCapability))) {
      return version + " cannot read fixed offsets (9.0 can)";
    }
    if (options_.read.cache == CacheUse::kBypass && !HasParameter("direct-io")) {
      return version + " cannot bypass the cache (9.1 can)";
    }
    if (!options_.way && LeavesPagesUnchecked() && options_.checks == PageChecks::kOn) {
      return "QEMU would not look at the checksums of its pages";
    }
    const auto used = std::ranges::find_if(backends_, MayHoldData);
    if (used == backends_.end()) return "";
    return fmt::format("memory backend {} has a file with data in it, and QEMU clears no page that the image has not",
                       used->id);
  }

  std::string WhyNotOverMultifd() {
    const unsigned channels = std::min(options_.read.channels, kMaxMultifdChannels);
    if (!options_.way && channels == 1) return "there is one channel only";
    if (std::string why = WhyNotMultifd(qmp_); !why.empty()) return why;
    try {
      multifd_.emplace(qmp_, channels, interrupt_);
      return "";
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFailed) throw;
      return error.what();
    }
  }

  bool LeavesPagesUnchecked() const { return image_.integrity().has_value() && !options_.pages_verified; }

  bool HasParameter(const std::string& name) { return qmp_.Execute("query-migrate-parameters").contains(name); }

  void ChooseWay() {
    if (options_.way) {
      if (const std::string why = WhyNot(*options_.way); !why.empty()) {
        Refuse(image_, fmt::format("--via {} does not work here: {}", RestoreWayName(*options_.way), why),
               "leave --via out");
      }
      summary_.way = *options_.way;
      return;
    }
    for (const RestoreWay way : {RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kMultifd, RestoreWay::kStream}) {
      const std::string why = WhyNot(way);
      if (why.empty()) {
        summary_.way = way;
        return;
      }
      if (summary_.why_not_faster.empty()) summary_.why_not_faster = why;
    }
  }

  void Load() {
    if (summary_.way == RestoreWay::kMemory) LoadIntoMemory();
    if (summary_.way == RestoreWay::kNative) LoadNatively();
    if (summary_.way == RestoreWay::kMultifd) LoadOverMultifd();
    if (summary_.way == RestoreWay::kStream) LoadAsStream();
  }

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
    CheckBlocksMatch(ram_, image_);
    std::vector<LoadTarget> targets;
    targets.reserve(image_.contents().blocks.size());
    std::vector<MemoryMapping> private_memory;
    for (const StreamBlock& block : image_.contents().blocks) {
      const auto mapped = std::ranges::find(ram_, block.name, &MappedBackend::block_name);
      if (mapped != ram_.end()) {
        targets.push_back({mapped->memory.bytes(), &mapped->file, mapped->start_in_file});
      } else {
        private_memory.push_back(MemoryMapping::Anonymous(block.length));
        targets.push_back({private_memory.back().bytes(), nullptr, FileOffset{0}});
      }
    }
    const LoadedRam loaded = LoadImage(image_, targets, options_.read, options_.checks, progress_, interrupt_);
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
    SendOverChannel(
        [&](ByteSink& sink) { SendImage(image_, sink, options_.read, options_.checks, progress_, interrupt_); });
    if (image_.has_fixed_offsets()) summary_.present = CountPresent(image_.contents());
  }

  void LoadOverMultifd() {
    multifd_->Connect(guest_uuid_);
    MultifdTarget target = multifd_->target();
    target.zero_blocks = ZeroBlocks();
    SendImageOverMultifd(image_, target, options_.read, options_.checks, progress_, interrupt_);
    multifd_->ShutDownSending();
    WaitLoaded(qmp_);
    multifd_.reset();
    if (image_.has_fixed_offsets()) summary_.present = CountPresent(image_.contents());
  }

  // Backends with fresh memory, by both names that their blocks may have. QEMU fills ROMs by itself.
  std::set<std::string> ZeroBlocks() const {
    std::set<std::string> blocks;
    for (const MemoryBackend& backend : backends_) {
      if (!MayHoldData(backend)) blocks.insert({backend.id, "/objects/" + backend.id});
    }
    return blocks;
  }

  template <class Send>
  void SendOverChannel(const Send& send) {
    const MigrationSettings settings(qmp_, {}, OnFailure::kLeave);
    MigrationChannel channel(qmp_);
    qmp_.Execute("migrate-incoming", {{"uri", channel.uri()}});
    SocketSink sink(channel.socket(), interrupt_);
    send(sink);
    channel.ShutDownSending();
    WaitLoaded(qmp_);
  }

  void LoadNatively() {
    MigrationSettings settings(qmp_, {std::string(kMappedRamCapability), "multifd"}, OnFailure::kLeave);
    settings.SetParameter("multifd-channels", std::min(options_.read.channels, kMaxMultifdChannels));
    DescriptorSet descriptors(qmp_, OnFailure::kLeave);
    descriptors.Add(image_.OpenForPages(CacheUse::kPageCache));
    if (options_.read.cache == CacheUse::kBypass) {
      descriptors.Add(image_.OpenForPages(CacheUse::kBypass));
      settings.SetParameter("direct-io", true);
    }
    progress_.Begin("QEMU is loading", ByteCount{0});
    qmp_.Execute("migrate-incoming",
                 {{"uri", fmt::format("file:{},offset={}", descriptors.path(), image_.stream_start().value())}});
    WaitLoaded(qmp_);
    summary_.present = CountPresent(image_.contents());
    summary_.pages_unchecked = LeavesPagesUnchecked();
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
    const bool runs = QueryStatus(qmp_) == "running";
    if (summary_.running && !runs) qmp_.Execute("cont");
    if (!summary_.running && runs) qmp_.Execute("stop");
  }

  QmpClient& qmp_;
  const Image& image_;
  const RestoreOptions& options_;
  Progress& progress_;
  const Interrupt& interrupt_;
  std::vector<MemoryBackend> backends_;
  std::string guest_uuid_;
  std::vector<MappedBackend> ram_;          // where it is shared
  std::optional<MultifdIncoming> multifd_;  // where QEMU listens for it
  RestoreSummary summary_;
};

}  // namespace

std::string_view RestoreWayName(RestoreWay way) {
  constexpr std::string_view kNames[] = {"memory", "native", "multifd", "stream"};
  return kNames[static_cast<int>(way)];
}

RestoreSummary RestoreGuest(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
                            const Interrupt& interrupt) {
  return Restore(qmp, image, options, progress, interrupt).Run();
}

void CheckCommandFits(const Image& image, const CommandFacts& command) {
  image.RefuseCompressed();
  if (command.has_incoming) {
    throw Error(ErrorKind::kUsage, "cannot start that QEMU", "its command has -incoming",
                "leave it out: vmrestore adds its own");
  }
  if (command.machine_type && IsVersioned(*command.machine_type)) CheckMachine(*command.machine_type, image);
  const std::optional<ByteCount> saved = ReadDescription(image.description()).memory;
  if (!saved || !command.memory) return;
  const ByteCount given{RoundUp(command.memory->value(), kMemoryGranularity)};
  if (*saved != given) {
    Refuse(image, fmt::format("the saved guest had {} of RAM, the command gives {}", Size(*saved), Size(given)),
           "give QEMU as much RAM as the saved guest had", ErrorKind::kDamaged);
  }
}

}  // namespace vmsave
