#include "qemu/save.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "qemu/device_capture.h"
#include "qemu/guest_facts.h"
#include "qemu/guest_ram.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kQuitTimeout = std::chrono::seconds(30);
constexpr ByteCount kSpaceBesidesRam{16 << 20};  // description, device state, checksums

[[noreturn]] void Refuse(const GuestFacts& guest, std::string_view why, std::string_view advice) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", guest.name), why, advice);
}

void CheckGuestCanBeSaved(QmpClient& qmp, const GuestFacts& guest) {
  if (guest.status == "inmigrate") Refuse(guest, "it waits for an incoming migration", "restore it first");
  if (guest.status == "postmigrate") {
    Refuse(guest, "it was paused by an earlier migration or save, after which QEMU allows no other until it has run",
           "resume it: QMP cont");
  }
  const std::string migration = QueryMigrationStatus(qmp);
  const std::set<std::string> at_rest{"none", "completed", "failed", "cancelled"};
  if (!at_rest.contains(migration)) {
    Refuse(guest, fmt::format("it is being migrated already (status {})", migration),
           "wait for that to end, or cancel it");
  }
}

std::vector<MappedBackend> MapSharedRam(QmpClient& qmp, const GuestFacts& guest) {
  const std::vector<MemoryBackend> backends = QueryMemoryBackends(qmp);
  if (const std::string why = WhyNotShared(backends); !why.empty()) {
    Refuse(guest, why, "give the guest's RAM a memory-backend-file or memory-backend-memfd with share=on");
  }
  return MapBackends(qmp, backends, MemoryMapping::Access::kRead);
}

void CheckSpace(const NewFile& file, const std::vector<MappedBackend>& ram) {
  ByteCount needed = kSpaceBesidesRam;
  for (const MappedBackend& mapped : ram) {
    needed +=
        TouchedBytes({mapped.backend.id, mapped.memory.bytes(), std::nullopt, &mapped.file, mapped.start_in_file});
  }
  const ByteCount available = file.FreeSpace();
  if (available >= needed) return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot save to {}", file.path()),
              fmt::format("the guest may need {} MiB there, and {} MiB are free", needed.value() >> 20,
                          available.value() >> 20),
              "free some space, or choose another directory");
}

// Whether and since when the guest stands still for us.
class StoppedGuest {
 public:
  StoppedGuest(QmpClient& qmp, bool was_running) : qmp_(qmp), was_running_(was_running) {
    if (was_running) qmp.Execute("stop");
    stopped_at_ = Clock::now();
  }

  // The save failed: the guest goes on as before. Throws where that fails too.
  void Undo() {
    qmp_.IgnoreInterrupt();
    if (was_running_) qmp_.Execute("cont");
  }

  // The image is complete. Returns how long the guest stood still.
  std::chrono::duration<double> Settle(AfterSave after) {
    qmp_.IgnoreInterrupt();
    if (after == AfterSave::kQuit) Quit();
    if (after == AfterSave::kResume && was_running_) qmp_.Execute("cont");
    return was_running_ ? Clock::now() - stopped_at_ : Clock::duration{};
  }

 private:
  void Quit() {
    qmp_.Execute("quit");
    if (qmp_.WaitClosed(kQuitTimeout)) return;
    throw Error(ErrorKind::kFailed, "the image is complete, but the guest did not quit", "QEMU does not answer",
                "end that QEMU before the image is restored");
  }

  QmpClient& qmp_;
  bool was_running_;
  Clock::time_point stopped_at_;
};

std::set<std::string> MappedBlockNames(const std::vector<MappedBackend>& ram) {
  std::set<std::string> names;
  for (const MappedBackend& mapped : ram) names.insert(mapped.block_name);
  return names;
}

RamBlock MakeBlock(const StreamBlock& block, const MemoryMapping& private_memory,
                   const std::vector<MappedBackend>& ram) {
  RamBlock result{block.name, private_memory.bytes(), block.address, nullptr, FileOffset{0}};
  if (!result.memory.empty()) return result;
  const auto mapped = std::ranges::find(ram, block.name, &MappedBackend::block_name);
  if (mapped->memory.bytes().size() != block.length.value()) {
    throw Error(
        ErrorKind::kFailed, fmt::format("cannot save RAM block {}", block.name),
        fmt::format("its backend has {} bytes, the block {}", mapped->memory.bytes().size(), block.length.value()));
  }
  result.memory = mapped->memory.bytes();
  result.backing = &mapped->file;
  result.backing_start = mapped->start_in_file;
  return result;
}

GuestImage MakeImage(const CapturedState& state, const std::vector<MappedBackend>& ram) {
  GuestImage image;
  image.frame = state.contents.frame;
  for (std::size_t i = 0; i < state.contents.blocks.size(); ++i) {
    image.blocks.push_back(MakeBlock(state.contents.blocks[i], state.private_memory[i], ram));
  }
  image.device_state = state.device_state;
  return image;
}

WriteTotals WriteImage(NewFile& file, const GuestImage& image, const SaveOptions& options, Progress& progress,
                       const Interrupt& interrupt) {
  const auto write = options.version == ImageVersion::k3 ? WriteVersion3 : WriteVersion2;
  const WriteTotals totals = write(file, image, options.write, progress, interrupt);
  interrupt.Check();
  file.Publish();
  return totals;
}

WriteTotals SaveStopped(QmpClient& qmp, const GuestFacts& guest, const std::vector<MappedBackend>& ram, NewFile& file,
                        const SaveOptions& options, Progress& progress, const Interrupt& interrupt) {
  progress.Begin("device state", ByteCount{0});
  const CapturedState state = CaptureDevices(qmp, MappedBlockNames(ram), interrupt);
  GuestImage image = MakeImage(state, ram);
  image.description = options.description.value_or(MakeDescription(guest));
  image.was_running = options.record_running.value_or(guest.running());
  return WriteImage(file, image, options, progress, interrupt);
}

// A guest that stays paused is worse than the failure that led to it: then both are told.
void UndoStop(StoppedGuest& stopped, const std::exception& failure) {
  try {
    stopped.Undo();
  } catch (const std::exception& undo_failure) {
    throw Error(ErrorKind::kFailed, failure.what(),
                fmt::format("and the guest could not be resumed: {}", undo_failure.what()),
                "if that QEMU is still there, resume it: QMP cont");
  }
}

}  // namespace

SaveSummary SaveGuest(QmpClient& qmp, const SaveOptions& options, Progress& progress, const Interrupt& interrupt) {
  const Clock::time_point start = Clock::now();
  NewFile file(options.path, options.replace, options.cache);
  const GuestFacts guest = QueryGuest(qmp);
  CheckGuestCanBeSaved(qmp, guest);
  const std::vector<MappedBackend> ram = MapSharedRam(qmp, guest);
  CheckSpace(file, ram);
  interrupt.Check();

  StoppedGuest stopped(qmp, guest.running());
  SaveSummary summary;
  summary.guest = guest.name;
  try {
    summary.totals = SaveStopped(qmp, guest, ram, file, options, progress, interrupt);
  } catch (const std::exception& failure) {
    UndoStop(stopped, failure);
    throw;
  }
  summary.paused = stopped.Settle(options.after);
  summary.elapsed = Clock::now() - start;
  return summary;
}

SaveSummary SaveImage(const GuestImage& guest, const std::string& name, const SaveOptions& options, Progress& progress,
                      const Interrupt& interrupt) {
  const Clock::time_point start = Clock::now();
  NewFile file(options.path, options.replace, options.cache);
  SaveSummary summary;
  summary.guest = name;
  summary.totals = WriteImage(file, guest, options, progress, interrupt);
  summary.elapsed = Clock::now() - start;
  return summary;
}

}  // namespace vmsave
