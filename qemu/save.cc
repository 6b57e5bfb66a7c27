#include "qemu/save.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "qemu/device_capture.h"
#include "qemu/guest_facts.h"
#include "qemu/guest_ram.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kQuitTimeoutMs = 30'000;
constexpr ByteCount kSpaceBesidesRam{32 << 20};  // description, device state, ROM and video memory
constexpr std::uint64_t kSpaceBesidesPage = 9;   // a record's head and fill byte; bitmap and checksum take less

[[noreturn]] void Refuse(const GuestFacts& guest, std::string_view why, std::string_view advice) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", guest.name), why, advice);
}

void CheckGuestCanBeSaved(QmpClient& qmp, const GuestFacts& guest) {
  if (guest.status == "inmigrate") Refuse(guest, "it waits for an incoming migration", "restore it first");
  if (guest.status == "postmigrate") {
    Refuse(guest, "it was paused by an earlier migration or save, after which QEMU allows no other until it has run",
           "resume it: QMP cont");
  }
  if (guest.status == "suspended") Refuse(guest, "it sleeps (S3)", "wake it first: QMP system_wakeup");
  const std::string migration = QueryMigrationStatus(qmp);
  if (!IsMigrationAtRest(migration)) {
    Refuse(guest, fmt::format("it is being migrated already (status {})", migration),
           "wait for that to end, or cancel it");
  }
}

// Without it at its end a sequential stream cannot be told from one that was cut short.
void CheckStreamWillShowItsEnd(QmpClient& qmp, const GuestFacts& guest, ImageVersion version) {
  if (version != ImageVersion::k2) return;
  try {
    const QmpClient::Json left_out = qmp.Execute("qom-get", {{"path", "/machine"}, {"property", "suppress-vmdesc"}});
    if (left_out != true) return;
  } catch (const QmpError&) {
    return;  // this machine type has no such property
  }
  Refuse(guest, "it runs with suppress-vmdesc=on, and nothing would show where a version 2 image of it ends",
         "use --image-version 3");
}

std::vector<MappedBackend> MapSharedRam(QmpClient& qmp, const GuestFacts& guest) {
  const std::vector<MemoryBackend> backends = QueryMemoryBackends(qmp);
  if (const std::string why = WhyNotShared(backends); !why.empty()) {
    Refuse(guest, why, "give the guest's RAM a memory-backend-file or memory-backend-memfd with share=on");
  }
  return MapBackends(qmp, backends, MemoryMapping::Access::kRead);
}

// At most: pages that QEMU has touched may be zero all the same.
ByteCount SpaceNeeded(const std::vector<MappedBackend>& ram) {
  ByteCount needed = kSpaceBesidesRam;
  for (const MappedBackend& mapped : ram) {
    needed +=
        TouchedBytes({mapped.backend.id, mapped.memory.bytes(), std::nullopt, &mapped.file, mapped.start_in_file});
    needed += ByteCount{mapped.backend.size.value() / kPageBytes * kSpaceBesidesPage};
  }
  return needed;
}

void CheckSpace(const NewFile& file, const std::vector<MappedBackend>& ram) {
  const ByteCount needed = SpaceNeeded(ram);
  const ByteCount available = file.FreeSpace();
  if (available >= needed) return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot save to {}", file.path()),
              fmt::format("the guest may need {} MiB there, and {} MiB are free", needed.value() >> 20,
                          available.value() >> 20),
              "free some space, or choose another directory");
}

// QEMU's process, so that its end can be waited for; no descriptor where it cannot be seen from here.
FileDescriptor OpenProcess(const QmpClient& qmp) {
  const pid_t pid = qmp.peer_pid();
  return {pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1, "QEMU's process"};
}

// Whether and since when the guest stands still for us.
class StoppedGuest {
 public:
  explicit StoppedGuest(QmpClient& qmp) : qmp_(qmp), process_(OpenProcess(qmp)) {}

  bool was_running() const { return was_running_; }

  // Not interrupted: whether the guest was stopped must be known. One whose answer does not come may have stopped it
  // all the same.
  void Stop() {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    // Asked again: it may have stopped by itself meanwhile.
    was_running_ = QueryStatus(qmp_) == "running";
    if (was_running_) qmp_.Execute("stop");
    stopped_at_ = Clock::now();
  }

  // The save failed: the guest goes on as before. A guest that stays paused is worse than the failure that led to it:
  // then both are told.
  void Undo(const std::exception& failure) {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    try {
      if (was_running_) qmp_.Execute("cont");
    } catch (const std::exception& undo_failure) {
      throw Error(ErrorKind::kFailed, failure.what(),
                  fmt::format("and the guest could not be resumed: {}", undo_failure.what()),
                  "if that QEMU is still there, resume it: QMP cont");
    }
  }

  // The image is complete. Returns how long the guest stood still.
  std::chrono::duration<double> Settle(AfterSave after) {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    try {
      if (after == AfterSave::kQuit) Quit();
      if (after == AfterSave::kResume && was_running_) qmp_.Execute("cont");
    } catch (const Error& error) {
      throw Error(ErrorKind::kFailed, "the image is complete, but QEMU did not do as it was told", error.what(),
                  "see to it that this guest does not run on beside a restored one");
    }
    return was_running_ ? Clock::now() - stopped_at_ : Clock::duration{};
  }

 private:
  // Until the process has ended it holds its locks on disk images, and no other QEMU can have them.
  void Quit() {
    try {
      qmp_.Execute("quit");
    } catch (const Error&) {
      if (!qmp_.closed()) throw;  // else it went before it could answer
    }
    const bool ended = process_.valid() ? Interrupt().WaitReadable(process_.number(), kQuitTimeoutMs)
                                        : qmp_.WaitClosed(std::chrono::milliseconds(kQuitTimeoutMs));
    if (!ended) throw Error(ErrorKind::kFailed, "QEMU was told to quit", "it is still there after 30 s");
  }

  QmpClient& qmp_;
  FileDescriptor process_;
  bool was_running_ = false;
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

WriteTotals SaveStopped(QmpClient& qmp, const GuestFacts& guest, bool was_running,
                        const std::vector<MappedBackend>& ram, NewFile& file, const SaveOptions& options,
                        Progress& progress, const Interrupt& interrupt) {
  progress.Begin("device state", ByteCount{0});
  const CapturedState state = CaptureDevices(qmp, MappedBlockNames(ram), interrupt);
  GuestImage image = MakeImage(state, ram);
  image.description = options.description.value_or(MakeDescription(guest));
  image.was_running = options.record_running.value_or(was_running);
  return WriteImage(file, image, options, progress, interrupt);
}

}  // namespace

SaveSummary SaveGuest(QmpClient& qmp, const SaveOptions& options, Progress& progress, const Interrupt& interrupt) {
  const Clock::time_point start = Clock::now();
  NewFile file(options.path, options.replace, options.cache);
  const GuestFacts guest = QueryGuest(qmp);
  CheckGuestCanBeSaved(qmp, guest);
  CheckStreamWillShowItsEnd(qmp, guest, options.version);
  const std::vector<MappedBackend> ram = MapSharedRam(qmp, guest);
  CheckSpace(file, ram);
  interrupt.Check();

  StoppedGuest stopped(qmp);
  SaveSummary summary;
  summary.guest = guest.name;
  try {
    stopped.Stop();
    summary.totals = SaveStopped(qmp, guest, stopped.was_running(), ram, file, options, progress, interrupt);
  } catch (const std::exception& failure) {
    stopped.Undo(failure);
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
  GuestImage image = guest;
  image.description = options.description.value_or(guest.description);
  image.was_running = options.record_running.value_or(guest.was_running);
  summary.totals = WriteImage(file, image, options, progress, interrupt);
  summary.elapsed = Clock::now() - start;
  return summary;
}

}  // namespace vmsave
