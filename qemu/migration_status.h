// How far QEMU's migration is: the present one, or the last.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "qemu/qmp_client.h"

namespace vmsave {

// What query-migrate tells (QEMU's qapi/migration.json, MigrationInfo). QEMU leaves out what it does not know.
struct MigrationStatus {
  std::string status;  // "active", "completed", ...; "none" where there was none, or an incoming one has not begun
  std::string error;   // why it failed; empty where QEMU does not tell
  std::optional<std::chrono::milliseconds> downtime;    // of the guest, once the migration has completed
  std::optional<std::chrono::milliseconds> total_time;  // since it began; once it has ended, until then
  ByteCount ram;                                        // of the guest; 0 where QEMU does not tell
  ByteCount ram_left;  // still to be sent; grows again as a running guest changes pages
};

// Throws Error{kFailed} where QEMU's answer is not understood, and what QmpClient::Execute throws.
MigrationStatus QueryMigration(QmpClient& qmp);

// The status alone.
std::string QueryMigrationStatus(QmpClient& qmp);

// Whether no migration is under way: there was none, or it has ended, well or not.
bool IsMigrationAtRest(const std::string& migration_status);

// Waits until the migration that was asked for has completed, for as long as that takes: the operator can end it (the
// interrupt of `qmp`). Throws Error{kFailed} with QEMU's reason where it ends otherwise, and what QueryMigration
// throws.
void WaitMigrationCompleted(QmpClient& qmp, std::string_view what_failed, std::string_view advice = "");

// Whether QEMU has cleaned up after its last migration, too: it tells "completed" and "failed" before that, and takes
// no other meanwhile. Where QEMU does not tell (before 6.0), waits 100 ms for it. Throws as QueryMigration does.
bool IsMigrationGone(QmpClient& qmp);

}  // namespace vmsave
