#include "qemu/save.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/run_state.h"
#include "qemu/guest_facts.h"
#include "qemu/guest_pause.h"
#include "qemu/process_maps.h"
#include "qemu/save_guard.h"
#include "qemu/save_job.h"
#include "writer/run_record.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr ByteCount kSpaceBesidesRam{32 << 20};  // description, device state, ROM and video memory
constexpr std::uint64_t kSpaceBesidesPage = 9;   // a record's head and fill byte; bitmap and checksum take less

[[noreturn]] void Refuse(const GuestFacts& guest, std::string_view why, std::string_view advice) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", guest.name), why, advice);
}

void CheckGuestCanBeSaved(QmpClient& qmp, const GuestFacts& guest, LiveMode live) {
  if (guest.status == "inmigrate") Refuse(guest, "it waits for an incoming migration", "restore it first");
  if (guest.status == "postmigrate") {
    Refuse(guest, "it was paused by an earlier migration or save, after which QEMU allows no other until it has run",
           "resume it: QMP cont");
  }
  if (guest.status == "suspended") Refuse(guest, "it sleeps (S3)", "wake it first: QMP system_wakeup");
  // QEMU 7.2 and 10.0 end themselves over it.
  if (guest.status == "prelaunch" && live == LiveMode::kSnapshot) {
    Refuse(guest, "QEMU takes no snapshot of a guest that has not run yet", "leave --live out, or start it: QMP cont");
  }
  const std::string migration = QueryMigrationStatus(qmp);
  if (migration.starts_with("postcopy-")) {
    Refuse(guest, fmt::format("its memory is still on its way (status {})", migration),
           "a guest that was restored with --lazy can be saved once all of it is there");
  }
  if (!IsMigrationAtRest(migration)) {
    Refuse(guest, fmt::format("it is being migrated already (status {})", migration),
           "wait for that to end, or cancel it");
  }
  if (!IsMigrationGone(qmp)) {
    Refuse(guest, "QEMU does not get its last migration ended", "only a QEMU that was started anew takes another");
  }
}

// A guest that stands still is its own snapshot; QEMU before 8.1 would start it (migration/migration.c,
// bg_migration_vm_start_bh).
LiveMode LiveModeFor(const GuestFacts& guest, LiveMode wished) {
  return wished == LiveMode::kSnapshot && guest.status != "running" ? LiveMode::kNo : wished;
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

using CountBytes = ByteCount (*)(const RamBlock&);

// At most: pages that QEMU has touched may be zero all the same.
ByteCount SpaceNeeded(const std::vector<MappedBackend>& ram, CountBytes count) {
  ByteCount needed = kSpaceBesidesRam;
  for (const MappedBackend& mapped : ram) {
    needed += count({mapped.backend.id, mapped.memory.bytes(), std::nullopt, &mapped.file, mapped.start_in_file});
    needed += ByteCount{mapped.backend.size.value() / kPageBytes * kSpaceBesidesPage};
  }
  return needed;
}

ByteCount SpaceNeeded(const QmpClient& qmp, const GuestFacts& guest) {
  const ByteCount overhead = kSpaceBesidesRam + ByteCount{guest.memory.value() / kPageBytes * kSpaceBesidesPage};
  return std::min(guest.memory, UsedMemory(qmp.peer_pid()).value_or(guest.memory)) + overhead;
}

void CheckSpace(const NewFile& file, ByteCount needed) {
  const ByteCount available = file.FreeSpace();
  if (available >= needed) return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot save to {}", file.path()),
              fmt::format("the guest may need {} MiB there, and {} MiB are free", needed.value() >> 20,
                          available.value() >> 20),
              "free some space, or choose another directory");
}

NewFile MakeFile(const SaveOptions& options, SaveGuard* guard) {
  return {options.path, options.replace, options.cache,
          guard == nullptr ? NewFile::Announce() : guard->AnnounceFile(options.path)};
}

ErrorKind KindOf(const std::exception& failure) {
  const auto* error = dynamic_cast<const Error*>(&failure);
  return error != nullptr ? error->kind() : ErrorKind::kFailed;
}

// The failure that was seen is not all: QEMU may hang in the migration.
void TellIfMigrationStays(QmpClient& qmp, const GuestFacts& guest, const std::exception& failure) {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp);
    if (IsMigrationGone(qmp)) return;
  } catch (const std::exception&) {
    return;  // nothing can be told
  }
  throw Error(ErrorKind::kFailed, failure.what(),
              fmt::format("and QEMU does not get its migration of {} ended", guest.name),
              "until that has ended, or its QEMU was started anew, the guest cannot be saved or migrated, and its "
              "migration settings stay as the save needed them");
}

// What QEMU wrote or sent makes no sense: no image is damaged.
void ThrowAsFailure(const GuestFacts& guest, const std::exception& failure) {
  if (KindOf(failure) != ErrorKind::kDamaged) return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", guest.name), failure.what());
}

WriteTotals Take(SaveJob& job, const SourceChoice& choice) {
  switch (choice.source) {
    case SaveSource::kMemory:
      return SaveFromMemory(job, choice.ram);
    case SaveSource::kQemu:
      return SaveByQemu(job);
    case SaveSource::kMultifd:
      return SaveFromMultifd(job);
    case SaveSource::kStream:
      break;
  }
  return SaveFromStream(job);
}

// The steps of one save. What each has begun, the next one's failure undoes; or the guard, where this process is
// killed.
class Save {
 public:
  Save(QmpClient& qmp, const SaveOptions& options, Progress& progress, const Interrupt& interrupt, SaveGuard* guard)
      : qmp_(qmp),
        options_(options),
        progress_(progress),
        interrupt_(interrupt),
        guard_(guard),
        file_(MakeFile(options, guard)),
        facts_(QueryGuest(qmp)) {}

  SaveSummary Run() {
    Prepare();
    if (guard_ != nullptr) guard_->NoteGuest(qmp_, facts_.name, options_.after);
    GuestPause pause(qmp_, facts_.name, guard_);
    SaveOrUndo(pause);
    pause.Settle(options_.after);
    if (guard_ != nullptr) guard_->NoteEnd();
    summary_.paused = pause.length();
    summary_.runs_on = options_.after == AfterSave::kResume && pause.was_running();
    summary_.elapsed = Clock::now() - start_;
    return summary_;
  }

 private:
  // All that can be found out while the guest still runs.
  void Prepare() {
    CheckGuestCanBeSaved(qmp_, facts_, options_.live);
    CheckStreamWillShowItsEnd(qmp_, facts_, options_.version);
    choice_ = ChooseSource(qmp_, {options_.from, options_.live, options_.version}, guard_);
    CheckSpaceForGuest();
    live_ = LiveModeFor(facts_, options_.live);
    most_ram_ = QueryMostRam(qmp_, facts_);
    interrupt_.Check();
    summary_.guest = facts_.name;
    summary_.source = choice_.source;
    summary_.why_not_better = choice_.why_not_better;
    summary_.after = options_.after;
  }

  void SaveOrUndo(GuestPause& pause) {
    try {
      if (live_ == LiveMode::kNo) pause.Stop();
      WriteImage(pause);
      Publish(pause);
    } catch (const std::exception& failure) {
      if (guard_ != nullptr) guard_->NotePublishingFailed();
      pause.Undo(failure);
      TellIfMigrationStays(qmp_, facts_, failure);
      ThrowAsFailure(facts_, failure);
      throw;
    }
  }

  // How much memory was touched is only looked at closely where that decides.
  void CheckSpaceForGuest() {
    if (choice_.source != SaveSource::kMemory) return CheckSpace(file_, SpaceNeeded(qmp_, facts_));
    if (SpaceNeeded(choice_.ram, MostTouchedBytes) <= file_.FreeSpace()) return;
    CheckSpace(file_, SpaceNeeded(choice_.ram, TouchedBytes));
  }

  void WriteImage(GuestPause& pause) {
    SaveJob job = MakeJob(pause);
    summary_.totals = Take(job, choice_);
    const bool was_running = WasRunning(pause);  // somebody may have stopped it meanwhile
    if (was_running != job.was_running) RecordWasRunning(file_, was_running);
  }

  SaveJob MakeJob(GuestPause& pause) {
    const auto found_state = [&pause](std::span<const std::byte> device_state) {
      pause.FoundState(RunStateIn(device_state));
    };
    const auto release = [this, &pause] {
      if (live_ != LiveMode::kSnapshot) pause.CheckStandsStill();
      if (options_.after == AfterSave::kResume) pause.Resume();
    };
    return {.qmp = qmp_,
            .file = file_,
            .version = options_.version,
            .live = live_,
            .most_ram = most_ram_,
            .write = options_.write,
            .limits = options_.limits,
            .description = options_.description.value_or(MakeDescription(facts_)),
            .was_running = WasRunning(pause),
            .guest = MakeFollowed(pause),
            .found_state = found_state,
            .release = release,
            .guard = guard_,
            .progress = progress_,
            .interrupt = interrupt_};
  }

  FollowedGuest MakeFollowed(GuestPause& pause) const {
    if (live_ != LiveMode::kPrecopy) return {};
    return {.stop = [&pause] { pause.Stop(); }, .look = [&pause] { pause.Look(); }};
  }

  bool WasRunning(const GuestPause& pause) const { return options_.record_running.value_or(pause.was_running()); }

  void Publish(GuestPause& pause) {
    interrupt_.Check();
    if (live_ != LiveMode::kSnapshot && options_.after != AfterSave::kResume) pause.CheckStandsStill();
    if (guard_ != nullptr) guard_->NotePublishing(file_);
    file_.Publish();
  }

  const Clock::time_point start_ = Clock::now();
  QmpClient& qmp_;
  const SaveOptions& options_;
  Progress& progress_;
  const Interrupt& interrupt_;
  SaveGuard* guard_;
  NewFile file_;
  GuestFacts facts_;
  SourceChoice choice_;
  LiveMode live_{};
  ByteCount most_ram_;
  SaveSummary summary_;
};

}  // namespace

SaveSummary SaveGuest(QmpClient& qmp, const SaveOptions& options, Progress& progress, const Interrupt& interrupt,
                      SaveGuard* guard) {
  return Save(qmp, options, progress, interrupt, guard).Run();
}

// QEMU commit 03bfc2188f, in 9.0: where the bits of changed pages are cleared, an emulated CPU went on writing to these
// pages without setting them again. Seen on 7.2 in every tenth image of a guest that changes much.
std::string WarningBefore(QmpClient& qmp, const SaveOptions& options) {
  if (options.live != LiveMode::kPrecopy || qmp.version().major >= 9) return "";
  if (qmp.Execute("query-kvm").value("enabled", false)) return "";
  return fmt::format(
      "QEMU {}.{} without KVM loses some changes that a running guest makes to its memory (before 9.0), so the image "
      "may be wrong; safe are KVM, --live=snapshot, and a save without --live",
      qmp.version().major, qmp.version().minor);
}

SaveSummary SaveImage(const GuestImage& guest, const std::string& name, const SaveOptions& options, Progress& progress,
                      const Interrupt& interrupt, SaveGuard* guard) {
  const Clock::time_point start = Clock::now();
  NewFile file = MakeFile(options, guard);
  SaveSummary summary;
  summary.guest = name;
  GuestImage image = guest;
  image.description = options.description.value_or(guest.description);
  image.was_running = options.record_running.value_or(guest.was_running);
  const auto write = options.version == ImageVersion::k3 ? WriteVersion3 : WriteVersion2;
  summary.totals = write(file, image, options.write, progress, interrupt);
  interrupt.Check();
  if (guard != nullptr) guard->NotePublishing(file);
  file.Publish();
  summary.elapsed = Clock::now() - start;
  return summary;
}

}  // namespace vmsave
