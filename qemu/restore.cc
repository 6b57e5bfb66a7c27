#include "qemu/restore.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "qemu/guest_facts.h"
#include "qemu/guest_ram.h"
#include "qemu/migration_channel.h"
#include "qemu/migration_settings.h"
#include "reader/memory_loader.h"
#include "reader/stream_sender.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStatusPoll = std::chrono::milliseconds(2);
constexpr int kDescriptorSet = 1000;  // a number that a QEMU command line hardly uses
constexpr std::string_view kSeeQemu = "QEMU's own message says why";

[[noreturn]] void Refuse(const Image& image, std::string_view why, std::string_view advice,
                         ErrorKind kind = ErrorKind::kFailed) {
  throw Error(kind, fmt::format("cannot restore {}", image.path()), why, advice);
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
             "name the memory backends as the saved guest's, or use --via stream", ErrorKind::kDamaged);
    }
    if (block->length != mapped.backend.size) {
      Refuse(image,
             fmt::format("its RAM block {} has {} MiB, QEMU's has {} MiB", block->name, block->length.value() >> 20,
                         mapped.backend.size.value() >> 20),
             "give QEMU as much RAM as the saved guest had", ErrorKind::kDamaged);
    }
  }
}

// Waits until QEMU has loaded what it was sent.
void WaitLoaded(QmpClient& qmp) {
  while (true) {
    const QmpClient::Json migration = qmp.Execute("query-migrate");
    const std::string status = migration.value("status", "none");
    if (status == "completed" && QueryStatus(qmp) != "inmigrate") return;
    if (status == "failed") {
      throw Error(ErrorKind::kFailed, "cannot load the guest", migration.value("error-desc", "QEMU refused it"),
                  kSeeQemu);
    }
    std::this_thread::sleep_for(kStatusPoll);
  }
}

void CheckKind(const Image& image) {
  if (image.kind() != ImageKind::kCompressed) return;
  const std::string_view format = BodyFormatName(image.header()->format);
  Refuse(image, fmt::format("its body is compressed with {}, which this vmrestore does not read", format),
         "restore it with virsh restore", ErrorKind::kDamaged);
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
    CheckKind(image_);
    const GuestFacts guest = QueryGuest(qmp_);
    CheckQemuWaits(qmp_, image_);
    CheckMachine(guest.machine, image_);
    ChooseWay();
    Load();
    Resume();
    summary_.elapsed = Clock::now() - start;
    for (const StreamBlock& block : image_.contents().blocks) summary_.ram += block.length;
    return summary_;
  }

 private:
  // Empty, or why not.
  std::string WhyNot(RestoreWay way) {
    switch (way) {
      case RestoreWay::kMemory:
        return WhyNotShared(QueryMemoryBackends(qmp_));
      case RestoreWay::kNative:
        if (!image_.has_fixed_offsets()) return "the image is a sequential stream";
        if (!QueryCapabilities(qmp_).contains(std::string(kMappedRamCapability))) {
          return fmt::format("QEMU {}.{} cannot read fixed offsets (9.0 can)", qmp_.version().major,
                             qmp_.version().minor);
        }
        if (options_.read.cache == CacheUse::kBypass && !HasParameter("direct-io")) {
          return fmt::format("QEMU {}.{} cannot bypass the cache (9.1 can)", qmp_.version().major,
                             qmp_.version().minor);
        }
        return "";
      case RestoreWay::kStream:
        return "";
    }
    return "";
  }

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
    for (const RestoreWay way : {RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kStream}) {
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
    if (summary_.way == RestoreWay::kStream) LoadAsStream();
  }

  // RAM first, through a mapping of our own. Then a stream that has no page of it: QEMU leaves RAM that it is sent no
  // page of as it is.
  void LoadIntoMemory() {
    std::vector<MappedBackend> ram = MapBackends(qmp_, QueryMemoryBackends(qmp_), MemoryMapping::Access::kReadWrite);
    CheckBlocksMatch(ram, image_);
    std::vector<LoadTarget> targets;
    targets.reserve(image_.contents().blocks.size());
    std::vector<MemoryMapping> private_memory;
    for (const StreamBlock& block : image_.contents().blocks) {
      const auto mapped = std::ranges::find(ram, block.name, &MappedBackend::block_name);
      if (mapped != ram.end()) {
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

  template <class Send>
  void SendOverChannel(const Send& send) {
    const MigrationSettings settings(qmp_, {});
    MigrationChannel channel(qmp_);
    qmp_.Execute("migrate-incoming", {{"uri", channel.uri()}});
    ChannelSink sink(channel, interrupt_);
    send(sink);
    channel.ShutDownSending();
    WaitLoaded(qmp_);
  }

  void LoadNatively() {
    MigrationSettings settings(qmp_, {std::string(kMappedRamCapability), "multifd"});
    settings.SetParameter("multifd-channels", options_.read.channels);
    AddDescriptor(image_.OpenForPages(CacheUse::kPageCache));
    if (options_.read.cache == CacheUse::kBypass) {
      AddDescriptor(image_.OpenForPages(CacheUse::kBypass));
      settings.SetParameter("direct-io", true);
    }
    progress_.Begin("QEMU is loading", ByteCount{0});
    qmp_.Execute("migrate-incoming",
                 {{"uri", fmt::format("file:/dev/fdset/{},offset={}", kDescriptorSet, image_.stream_start().value())}});
    WaitLoaded(qmp_);
    qmp_.Execute("remove-fd", {{"fdset-id", kDescriptorSet}});
    summary_.present = CountPresent(image_.contents());
  }

  void AddDescriptor(const FileDescriptor& file) {
    qmp_.Execute("add-fd", {{"fdset-id", kDescriptorSet}, {"opaque", "vmrestore"}}, file.number());
  }

  static ByteCount CountPresent(const StreamContents& contents) {
    ByteCount present;
    for (const StreamBlock& block : contents.blocks) present += PagesToBytes(PageIndex{block.present.CountSet()});
    return present;
  }

  void Resume() {
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
  RestoreSummary summary_;
};

}  // namespace

std::string_view RestoreWayName(RestoreWay way) {
  constexpr std::string_view kNames[] = {"memory", "native", "stream"};
  return kNames[static_cast<int>(way)];
}

RestoreSummary RestoreGuest(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
                            const Interrupt& interrupt) {
  return Restore(qmp, image, options, progress, interrupt).Run();
}

void CheckCommandFits(const Image& image, const CommandFacts& command) {
  CheckKind(image);
  if (command.has_incoming) {
    throw Error(ErrorKind::kUsage, "cannot start that QEMU", "its command has -incoming",
                "leave it out: vmrestore adds its own");
  }
  if (command.machine_type && IsVersioned(*command.machine_type)) CheckMachine(*command.machine_type, image);
  const std::optional<ByteCount> saved = ReadDescription(image.description()).memory;
  if (saved && command.memory && *saved != *command.memory) {
    Refuse(image,
           fmt::format("the saved guest had {} MiB of RAM, the command gives {} MiB", saved->value() >> 20,
                       command.memory->value() >> 20),
           "give QEMU as much RAM as the saved guest had", ErrorKind::kDamaged);
  }
}

}  // namespace vmsave
