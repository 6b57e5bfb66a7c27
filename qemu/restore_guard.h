// A process that ends the QEMU which vmrestore has started, when vmrestore is killed before the guest is in it.
#pragma once

#include <string>
#include <vector>

#include "io/guard_process.h"
#include "io/held_process.h"
#include "io/private_directory.h"
#include "qemu/qmp_client.h"
#include "qemu/restore_record.h"

namespace vmsave {

// Not thread-safe. Once the guest is loaded the guard finishes the restore instead: it resumes the guest, or leaves it
// paused, as was asked.
class RestoreGuard {
 public:
  // Forks, as GuardProcess does. REQUIRES: no other thread has been started.
  RestoreGuard();

  // For PrivateDirectory.
  PrivateDirectory::Announce AnnounceDirectory();
  // Some that another process has made, and left to this one.
  void NoteDirectories(const std::vector<std::string>& paths);
  // Every process that has `argument` in its command line is QEMU, or has started it.
  void NoteArgument(const std::string& argument);
  // One that will have it there in a moment.
  void NoteProcess(const HeldProcess& process);
  void NoteLoaded(const QmpClient& qmp, bool run);
  // The guest could not be resumed: this process gives up.
  void NoteNotRunning();
  // The guest is going to run, and needs to be served. The guard goes on with that; `spare` as of LazyBegin.
  void NoteServing(const QmpClient& qmp, const ServingRecord& serving, const FileDescriptor& spare);
  // QEMU is going to be served over the spare.
  void NoteSpareUsed();
  // It runs or is paused, as it was to.
  void NoteStarted();
  // This process gives up serving the guest: the guard keeps what vmrestore --recover needs (kept_serving.h) once this
  // process has ended.
  void NoteUnserved();
  // The guest is restored, and QEMU is to stay.
  void NoteReleased();

  // Whether somebody killed the guard.
  bool gone() const { return process_.gone(); }

 private:
  void Record();

  RestoreRecord record_;
  GuardProcess process_;
};

}  // namespace vmsave
