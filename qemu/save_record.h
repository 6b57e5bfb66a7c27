// What a save has begun: all that must be known to undo it, or to finish it, in its place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qemu/guest_pause.h"
#include "qemu/migration_end.h"
#include "qemu/migration_settings.h"

namespace vmsave {

// A file that is about to get its name: it has it once that name means this very file.
struct Publishing {
  std::string name;  // in the image's directory
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

struct SaveRecord {
  std::string guest;
  std::string qmp_socket;  // where its QMP was found
  std::optional<PauseState> pause;
  std::optional<MigrationKind> migration;  // of ours, which may be under way
  OldMigrationSettings settings;
  std::string descriptors;               // what sets of ours in QEMU are marked with; empty where there is none
  std::vector<std::string> directories;  // with sockets of ours
  std::string path;                      // of the image, for messages
  std::string temporary;                 // its name in the image's directory until then
  std::optional<Publishing> publishing;
  AfterSave after = AfterSave::kQuit;
};

// In a form that leaves names as they are, whatever bytes they have.
std::string EncodeSaveRecord(const SaveRecord& record);

// REQUIRES: what EncodeSaveRecord has returned.
SaveRecord DecodeSaveRecord(const std::string& text);

}  // namespace vmsave
