#include "qemu/stream_receiver.h"

#include "io/channels.h"
#include "qemu/migration_channel.h"

namespace vmsave {
namespace {

void Receive(QmpClient& qmp, OutgoingMigration& migration, const std::function<void(SocketReader&)>& receive,
             Progress& progress, const Interrupt& interrupt) {
  const MigrationChannel channel(qmp);
  const auto run = [&](const ChannelContext& context) {
    if (context.channel() == 0) {
      migration.Start(channel.uri());
      migration.Follow([&] { return context.GoOn(); }, progress);
    } else {
      SocketReader reader(channel.socket(), interrupt, [&] { context.EndWithOthers(); });
      receive(reader);
    }
  };
  try {
    RunChannels(2, interrupt, run);
  } catch (...) {
    migration.GoOnUntilItMayEnd(channel.socket());
    throw;
  }
}

}  // namespace

void ReceiveStream(QmpClient& qmp, OutgoingMigration& migration, const std::function<void(SocketReader&)>& receive,
                   Progress& progress, const Interrupt& interrupt) {
  try {
    Receive(qmp, migration, receive, progress, interrupt);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kDamaged) throw;
    migration.Explain(error.what());
  }
}

}  // namespace vmsave
