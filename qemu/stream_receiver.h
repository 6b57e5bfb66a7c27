// Receives a migration out of a guest over one connection.
#pragma once

#include <functional>

#include "qemu/outgoing_migration.h"
#include "qemu/socket_source.h"

namespace vmsave {

// Starts the migration and runs `receive`, which reads all of the stream, at the same time on another thread: QEMU may
// hold its main lock while it writes to the connection, and answers no command until somebody reads. Returns when the
// migration has completed and `receive` has returned; throws what either does.
void ReceiveStream(QmpClient& qmp, OutgoingMigration& migration, const std::function<void(SocketReader&)>& receive,
                   Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
