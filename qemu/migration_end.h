// How a migration out of a guest is ended that is not to complete.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <thread>

#include "qemu/qmp_client.h"

namespace vmsave {

// The sockets that QEMU sends a migration over.
using MigrationSockets = std::span<const FileDescriptor* const>;

// What the end of a migration depends on.
struct MigrationKind {
  // A background snapshot has to go on for a while before it is ended:
  // - QEMU < 8.1 takes the write protection off the guest's RAM only where the snapshot runs to its end
  //   (migration/migration.c, bg_migration_completion); the guest would hang at its next write, for good.
  // - QEMU >= 8.1 closes descriptor 0, whatever that is by then, where it ends before writes are tracked, which is
  //   before the guest resumes (migration/ram.c, ram_write_tracking_stop: uffdio_fd is 0 until then).
  bool is_snapshot = false;
  bool must_run_to_its_end = false;
  // QEMU 10.0 frees the bitmaps of fixed offsets before it stops the channels that set bits in them (migration/ram.c:
  // ram_save_cleanup, migration/multifd.c).
  bool crashes_when_cancelled_in_full_flight = false;
};

MigrationKind KindOfMigration(const std::set<std::string>& capabilities, const QemuVersion& version);

// Takes all that comes over the sockets, and over connections made to those that listen, and throws it away, until it
// is stopped. For another thread: QEMU may wait for room in a socket, and answers no command until somebody reads.
void ThrowAway(MigrationSockets sockets, const std::stop_token& stop);

// ThrowAway on a thread of its own, as long as it lives. Where no thread is to be had the sockets are shut down, which
// frees a QEMU that waits for room, too. The sockets, and what the span names them by, must outlive it.
class SocketDrain {
 public:
  explicit SocketDrain(MigrationSockets sockets) noexcept;

 private:
  std::jthread thread_;
};

// Where QEMU's settings for migrations were noted, so that they will be put back. Each throws what QmpClient::Execute
// does.

// Waits until a background snapshot may be ended, or has ended. Returns at once for all others.
void GoOnUntilMigrationMayEnd(QmpClient& qmp, const MigrationKind& kind);

// Cancels it, and waits at most 30 s until QEMU has cleaned up after it. One that has completed, or was never started,
// may be cancelled too.
void CancelMigration(QmpClient& qmp, const MigrationKind& kind);

// Waits at most 30 s until QEMU has cleaned up after a migration that has ended. QEMU tells "completed" and "failed"
// before it does. If its settings changed under that, it would clean up what it does not have and leave what it has:
// QEMU 7.2 aborts over the channels of a multifd migration, the guest with it.
void AwaitMigrationGone(QmpClient& qmp);

}  // namespace vmsave
