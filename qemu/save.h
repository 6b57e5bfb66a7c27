// Saves a guest: the whole of it, as steps with an undo each. Start here for how a save runs.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "qemu/qmp_client.h"
#include "writer/image_writer.h"

namespace vmsave {

enum class ImageVersion { k2 = 2, k3 = 3 };

// What becomes of the guest once the image is complete.
enum class AfterSave { kQuit, kPause, kResume };

struct SaveOptions {
  std::string path;
  ImageVersion version = ImageVersion::k2;
  Replace replace = Replace::kNo;
  CacheUse cache = CacheUse::kPageCache;
  WriteOptions write;
  std::optional<std::string> description;  // else made from what QMP tells
  std::optional<bool> record_running;      // else the guest's own state
  AfterSave after = AfterSave::kQuit;
};

struct SaveSummary {
  std::string guest;
  WriteTotals totals;
  std::chrono::duration<double> elapsed{};
  std::chrono::duration<double> paused{};  // how long the guest stood still for the save; 0 for one that did not run
};

// What is checked before the guest is stopped: target, direct I/O, space, guest reachable, its state, RAM shared and
// mappable. Whatever fails, a running guest runs on, its migration settings are as before, and no file is left; unless
// the image is complete. A guest that was paused stays paused, though QEMU may call that "postmigrate" then. Throws
// Error.
SaveSummary SaveGuest(QmpClient& qmp, const SaveOptions& options, Progress& progress, const Interrupt& interrupt);

// Writes a guest that is in memory already.
SaveSummary SaveImage(const GuestImage& guest, const std::string& name, const SaveOptions& options, Progress& progress,
                      const Interrupt& interrupt);

}  // namespace vmsave
