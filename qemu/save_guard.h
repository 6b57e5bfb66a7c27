// A process that undoes a save when vmsave is killed in the middle of it: the guest runs again, QEMU is set as before,
// and no part of an image stays.
#pragma once

#include <mutex>

#include "io/guard_process.h"
#include "io/new_file.h"
#include "io/private_directory.h"
#include "qemu/save_record.h"

namespace vmsave {

// Each step of a save notes what it is about to do, so that nothing is done that the guard does not know of. Once the
// image has its name the guard finishes the save instead: the guest is ended, paused or resumed as was asked.
// Thread-safe.
class SaveGuard {
 public:
  // Forks, as GuardProcess does. REQUIRES: no other thread has been started.
  SaveGuard();

  // The guard takes the connection over as it is: nobody else can get hold of the guest first.
  void NoteGuest(const QmpClient& qmp, const std::string& name, AfterSave after);

  // For NewFile.
  NewFile::Announce AnnounceFile(const std::string& path);
  // For PrivateDirectory.
  PrivateDirectory::Announce AnnounceDirectory();
  // The file is about to get its name.
  void NotePublishing(const NewFile& file);

  void NotePublishingFailed();
  // The save has ended, well or not, and nothing is to be undone or finished any more.
  void NoteEnd();

  void NotePause(const PauseState& state);
  void NoteSettings(const OldMigrationSettings& old);
  void NoteMigration(const std::optional<MigrationKind>& kind);
  void NoteDescriptors(const std::string& mark);

  // A connection that QEMU sends over: QEMU is not to lose it when this process ends. The guard
  // keeps a duplicate until the migration is noted to have ended, or LetSocketsGo.
  void HoldSocket(const FileDescriptor& socket);
  void LetSocketsGo();

  // The same for all that QEMU makes: as GuardProcess::AcceptOn.
  void AcceptOn(const FileDescriptor& listener, unsigned count);
  std::optional<FileDescriptor> TakeConnection() { return process_.TakeConnection(); }
  int connections() const { return process_.connections(); }

  // Whether somebody killed the guard.
  bool gone() const { return process_.gone(); }

 private:
  template <class Change>
  void Note(const Change& change);

  std::mutex mutex_;
  SaveRecord record_;
  GuardProcess process_;
};

}  // namespace vmsave
