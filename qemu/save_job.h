// What the ways of taking a guest into a file have in common.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "format/stream_reader.h"
#include "qemu/outgoing_migration.h"
#include "qemu/save_source.h"
#include "writer/page_store.h"

namespace vmsave {

class SaveGuard;

// One save, under way. References are to what SaveGuest holds.
struct SaveJob {
  QmpClient& qmp;
  NewFile& file;
  ImageVersion version;
  LiveMode live;
  ByteCount most_ram;  // that its blocks can have
  const WriteOptions& write;
  const MigrationLimits& limits;
  std::string description;
  bool was_running;  // to be recorded, as far as is known before
  FollowedGuest guest;
  // To be called as soon as the device state is there, from any thread: whether the guest ran is known by it.
  std::function<void(std::span<const std::byte> device_state)> found_state;
  // To be called once the guest has been taken, and nothing more is needed of it.
  std::function<void()> release;
  SaveGuard* guard;  // to be told of what has to be undone; or null
  Progress& progress;
  const Interrupt& interrupt;
};

// Where pages that QEMU sends go.
std::unique_ptr<PageStore> MakeStore(const SaveJob& job, const StreamContents& contents);

// Each writes the whole image and makes it complete and durable, but for its name. Without `live` the guest stands
// still. Whatever they throw, no migration is left under way and QEMU's settings are as before. They throw Error.

// The guest's RAM is in `ram`: everything else comes from QEMU in milliseconds.
WriteTotals SaveFromMemory(SaveJob& job, const std::vector<MappedBackend>& ram);

// QEMU writes the pages; this process the rest, and the checksums.
WriteTotals SaveByQemu(SaveJob& job);

// QEMU sends everything to this process.
WriteTotals SaveFromMultifd(SaveJob& job);
WriteTotals SaveFromStream(SaveJob& job);

}  // namespace vmsave
