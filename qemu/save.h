// Saves a guest: the whole of it, as steps with an undo each. Start here for how a save runs.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "qemu/guest_pause.h"
#include "qemu/outgoing_migration.h"
#include "qemu/save_source.h"
#include "writer/image_writer.h"

namespace vmsave {

struct SaveOptions {
  std::string path;
  ImageVersion version = ImageVersion::k2;
  std::optional<SaveSource> from;  // else the best that works
  LiveMode live = LiveMode::kNo;
  MigrationLimits limits;
  Replace replace = Replace::kNo;
  CacheUse cache = CacheUse::kPageCache;
  WriteOptions write;
  std::optional<std::string> description;  // else made from what QMP tells
  std::optional<bool> record_running;      // else the guest's own state
  AfterSave after = AfterSave::kQuit;
};

struct SaveSummary {
  std::string guest;
  SaveSource source{};
  std::string why_not_better;  // why a better source was not taken; empty where there is none
  WriteTotals totals;
  std::chrono::duration<double> elapsed{};
  std::chrono::duration<double> paused{};  // how long the guest stood still for the save; 0 for one that did not run
  AfterSave after{};                       // what became of it
  bool runs_on = false;
};

// What is checked before the guest is stopped: target, direct I/O, space, guest reachable, its state, the source.
// Whatever fails, a running guest runs on, its migration settings are as before, and no file is left; unless the image
// is complete. With kResume the guest runs again as soon as nothing more is needed of it, while the rest of the image
// is written. A guest that was paused stays paused, though QEMU may call that "postmigrate" then. `guard`, where there
// is one, sees to all that should this process be killed. Throws Error.
SaveSummary SaveGuest(QmpClient& qmp, const SaveOptions& options, Progress& progress, const Interrupt& interrupt,
                      SaveGuard* guard = nullptr);

// What the operator is to know before such a save of this guest; empty where there is nothing. Changes nothing.
std::string WarningBefore(QmpClient& qmp, const SaveOptions& options);

// Writes a guest that is in memory already.
SaveSummary SaveImage(const GuestImage& guest, const std::string& name, const SaveOptions& options, Progress& progress,
                      const Interrupt& interrupt, SaveGuard* guard = nullptr);

}  // namespace vmsave
