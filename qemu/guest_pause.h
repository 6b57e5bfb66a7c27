// How a guest stands still for a save, and what becomes of it afterwards.
#pragma once

#include <chrono>
#include <exception>
#include <mutex>
#include <string>

#include "io/held_process.h"
#include "qemu/qmp_client.h"

namespace vmsave {

// What becomes of the guest once the image is complete.
enum class AfterSave { kQuit, kPause, kResume };

class SaveGuard;

// What has become of the guest so far.
struct PauseState {
  bool was_running = false;
  bool stopped = false;  // by us
  bool resumed = false;
};

// How long QEMU is given to stop or resume a guest, which waits for the guest's disks.
inline constexpr auto kPatienceWithDisks = std::chrono::minutes(10);

// Resumes the guest or stops it, unless it is so already. Throws as QmpClient::Execute does.
void LetRun(QmpClient& qmp, bool run);

// Whether QEMU saves the guest only once it has run again: its state has been taken, by a save that came to nothing
// afterwards, perhaps. Throws as QmpClient::Execute does.
bool NeedsToRunBeforeSave(QmpClient& qmp);

// None of its commands gives way to an interrupt, and those that stop or resume the guest wait 10 minutes for QEMU,
// which waits for the guest's disks: whether the guest runs must be known.
class GuestPause {
 public:
  // Looks whether the guest runs. `name` is for messages. `guard` knows what is to be undone here, where there is one.
  GuestPause(QmpClient& qmp, std::string name, SaveGuard* guard = nullptr);

  // Goes on where another has left off.
  GuestPause(QmpClient& qmp, std::string name, const PauseState& state);

  // As far as is known: before the save, or just before it was stopped.
  bool was_running() const { return state().was_running; }

  // Stops it, if it runs: one that does not was paused by somebody else, and stays so.
  void Stop();

  // While a migration of a running guest goes on: whoever has paused it wants it to stay so, whatever becomes of the
  // save. Nothing once its state was found, or once it was stopped for the save.
  void Look();

  // The state that a migration found a guest in which nobody had stopped for it: it may have been paused meanwhile.
  // From any thread: nothing is asked of QEMU.
  void FoundState(const std::optional<std::string>& run_state);

  // Throws Error{kFailed} where somebody else has resumed the guest since a migration of it has completed: its disks
  // may be newer than its image then. REQUIRES: it has completed; Resume was not called.
  void CheckStandsStill();

  // Nothing more is needed of the guest: it runs again, if it did before. Once.
  void Resume();

  // The save failed: the guest goes on as before. A QEMU that has ended, and a guest that stays paused, are worse than
  // the failure that was seen: then an Error that tells so is thrown.
  void Undo(const std::exception& failure);

  // The image is complete. Throws Error{kFailed} where QEMU does not do as it is told, and where a guest that was
  // stopped for the save runs, which nobody here has resumed: it is not ended then.
  void Settle(AfterSave after);

  // How long it stood still; until now, if it still does. As QEMU tells it by its events STOP and RESUME, since a
  // migration of a running guest stops it by itself; without those that cannot be had. 0 for one that did not run.
  std::chrono::duration<double> length();

 private:
  class Command;

  PauseState state() const;
  template <class Function>
  void Change(const Function& change);
  bool HasEnded() const;
  void RefuseResumed();
  void Quit();
  void WaitForResume() noexcept;
  void TakeEvents() noexcept;
  void Note(const QmpClient::Json& event);

  QmpClient& qmp_;
  SaveGuard* guard_ = nullptr;
  std::string name_;
  HeldProcess process_;  // QEMU, as far as it can be seen from here
  mutable std::mutex mutex_;
  PauseState state_;                                     // guarded by mutex_
  bool found_ = false;                                   // guarded by mutex_
  std::optional<std::chrono::microseconds> stopped_at_;  // since the epoch; while it stands still
  std::chrono::microseconds stood_still_{0};
};

}  // namespace vmsave
