// A process that ends the QEMU which vmrestore has started, when vmrestore is killed before the guest is in it.
#pragma once

#include <set>
#include <span>
#include <string>

#include "io/guard_process.h"
#include "io/held_process.h"
#include "io/private_directory.h"
#include "qemu/kept_serving.h"
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
  // Every process that has `argument` in its command line is QEMU, or has started it.
  void NoteArgument(const std::string& argument);
  // One that will have it there in a moment.
  void NoteProcess(const HeldProcess& process);
  void NoteLoaded(const QmpClient& qmp, bool run);
  // The guest could not be resumed: this process gives up.
  void NoteNotRunning();
  // QEMU has these on that connection, with those that it had.
  void NoteSpares(std::span<const SpareChannel> spares);
  // The guest is going to run, and needs to be served. The guard goes on with that.
  void NoteServing(const QmpClient& qmp, const ServingRecord& serving);
  // What another guard keeps is in this one's hands too, and still nobody serves the guest.
  void NoteKept(const KeptServing& kept);
  // The other has let go.
  void NoteTaken();
  // QEMU is going to be served over that one.
  void NoteSpareUsed(const std::string& name);
  // It runs or is paused, as it was to.
  void NoteStarted();
  // This process gives up serving the guest: the guard keeps what vmrestore --recover needs (kept_serving.h), and does
  // so when this returns, as far as it can within GuardProcess::Leave's time. Where the operator is not
  // told what to do, the guard tells, if QEMU is still there.
  void NoteUnserved(bool operator_is_told);
  // This process goes to the background: nobody is to wait for the guard either.
  void NoteInBackground();
  // The guest is restored, and QEMU is to stay.
  void NoteReleased();

  // Whether somebody killed the guard.
  bool gone() const { return process_.gone(); }

 private:
  void Record();

  RestoreRecord record_;
  std::set<std::string> spares_;  // that are held
  GuardProcess process_;
};

}  // namespace vmsave
