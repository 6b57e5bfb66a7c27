#include "qemu/stream_receiver.h"

#include <array>

#include "io/channels.h"
#include "qemu/migration_channel.h"

namespace vmsave {

void ReceiveStream(QmpClient& qmp, OutgoingMigration& migration, const std::function<void(SocketReader&)>& receive,
                   Progress& progress, const Interrupt& interrupt) {
  const MigrationChannel channel(qmp, migration.guard());
  const auto run = [&](const ChannelContext& context) {
    if (context.channel() == 0) {
      migration.Start(channel.uri());
      migration.Follow([&] { return context.GoOn(); }, progress);
    } else {
      SocketReader reader(channel.socket(), interrupt, [&] { context.EndWithOthers(); });
      receive(reader);
    }
  };
  migration.Receive(std::array{&channel.socket()}, [&] { RunChannels(2, interrupt, run); });
}

}  // namespace vmsave
