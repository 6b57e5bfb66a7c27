// A migration out of a guest: from its settings to its end, or its undoing.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "format/units.h"
#include "io/channels.h"
#include "io/progress.h"
#include "qemu/migration_end.h"
#include "qemu/migration_settings.h"
#include "qemu/migration_status.h"

namespace vmsave {

// What holds a migration of a running guest in bounds. Without them QEMU's own setting for the downtime holds, and
// there is no limit to the rest.
struct MigrationLimits {
  std::optional<std::chrono::milliseconds> downtime;  // that QEMU aims at
  std::optional<ByteCount> bandwidth;                 // per second
  std::optional<std::chrono::seconds> timeout;        // then the guest is paused, so that the migration ends
  bool auto_converge = false;                         // QEMU may slow the guest down
};

// A guest that may run while it is migrated. Both are called on the thread that follows the migration, and may be
// empty.
struct FollowedGuest {
  std::function<void()> stop;  // the limits' time is up
  std::function<void()> look;  // now and then: somebody else may pause it
};

// Sets up what every migration to us needs: nothing but the named capabilities, no TLS, no compression. The destructor
// cancels a migration that has not completed, waits until QEMU has cleaned up after it, and puts all settings back;
// where QEMU does not get it ended, that is tried all the same. A QEMU that answers nothing for 30 s there is given a
// second for each further command that is none of GuestPause's. Where `receive` was not given to Receive, destroy the
// sockets first: a QEMU that waits for room in one answers no command.
// REQUIRES: no migration is under way. One thread's at a time.
class OutgoingMigration {
 public:
  // `guard` knows what is to be undone here, where there is one. Throws QmpError with QEMU's reason where it refuses
  // one of the settings; they are then as before.
  OutgoingMigration(QmpClient& qmp, const std::set<std::string>& capabilities, const MigrationLimits& limits,
                    FollowedGuest guest = {}, SaveGuard* guard = nullptr);
  OutgoingMigration(const OutgoingMigration&) = delete;
  OutgoingMigration& operator=(const OutgoingMigration&) = delete;
  ~OutgoingMigration();

  MigrationSettings& settings() { return settings_; }
  SaveGuard* guard() const { return guard_; }

  // `what_failed`: how the Error begins where QEMU gives up.
  void Start(const std::string& uri, std::string what_failed = "QEMU cannot send the guest");

  // Runs `receive`, which takes all that comes over the sockets. Where it throws, ends the migration at once, while
  // what still comes is taken and thrown away, and rethrows; Error{kDamaged} becomes Error{kFailed}, with QEMU's reason
  // where QEMU has closed a connection.
  // - QEMU 7.2 may never end a multifd migration whose channels it loses one by one: its migration thread waits for
  //   those that have gone (migration/multifd.c, multifd_send_sync_main).
  void Receive(MigrationSockets sockets, const std::function<void()>& receive);

  // Receives over all sockets at once, each on a thread of its own that `receive` is called on with the socket's place,
  // and Follows at the same time on another, after `start`: QEMU may hold its main lock while it writes to a socket,
  // and answers no command until somebody reads. For that reason a socket whose `receive` has failed is still read from
  // until nothing is asked of QEMU any more. Throws as Receive does.
  void ReceiveAll(MigrationSockets sockets, const std::function<void()>& start,
                  const std::function<void(unsigned socket, const ChannelContext&)>& receive, Progress& progress,
                  const Interrupt& interrupt);

  // Throws Error{kFailed} with QEMU's reason where the migration has ended, and not well. REQUIRES: Start.
  void Check();

  // Returns once it has completed: true; or when `go_on` tells false, which it is asked again and again. Shows in
  // `progress`, as its own phase, what is still to be sent. Stops the guest when its time is up. Throws as Check does.
  bool Follow(const std::function<bool()>& go_on, Progress& progress);

 private:
  std::string AwaitReason();
  std::string GiveUp(MigrationSockets sockets, bool is_broken) noexcept;
  MigrationStatus Look();
  void StopGuestWhenTimeIsUp();
  void End() noexcept;

  QmpClient& qmp_;
  SaveGuard* guard_;
  MigrationSettings settings_;
  MigrationKind kind_;
  std::optional<std::chrono::steady_clock::time_point> deadline_;
  std::optional<std::chrono::seconds> timeout_;
  FollowedGuest guest_;
  std::string what_failed_;
  bool started_ = false;
  bool completed_ = false;
};

}  // namespace vmsave
