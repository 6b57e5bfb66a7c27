#include "qemu/stream_receiver.h"

#include <array>

#include "qemu/migration_channel.h"

namespace vmsave {

void ReceiveStream(QmpClient& qmp, OutgoingMigration& migration, const std::function<void(SocketReader&)>& receive,
                   Progress& progress, const Interrupt& interrupt) {
  const MigrationChannel channel(qmp, migration.guard());
  migration.ReceiveAll(
      std::array{&channel.socket()}, [&] { migration.Start(channel.uri()); },
      [&](unsigned, const ChannelContext& context) {
        SocketReader reader(channel.socket(), interrupt, [&] { context.EndWithOthers(); });
        receive(reader);
      },
      progress, interrupt);
}

}  // namespace vmsave
