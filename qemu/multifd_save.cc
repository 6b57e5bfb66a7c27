// The guest's RAM over the channels of a multifd migration.
#include <algorithm>

#include "format/multifd_packet.h"
#include "qemu/multifd_receiver.h"
#include "qemu/save_job.h"

namespace vmsave {
namespace {

// In milliseconds, and not interrupted: where one connection is lost while it makes the others, QEMU 7.2 ends itself or
// never ends the migration.
MultifdSockets Connect(MultifdListener& listener, unsigned channels, OutgoingMigration& migration, const SaveJob& job) {
  const QmpClient::Uninterrupted uninterrupted(job.qmp);
  migration.Start(listener.UriFor(channels));
  MultifdSockets sockets;
  migration.Receive({}, [&] { sockets = listener.Accept(Interrupt(), [&migration] { migration.Check(); }); });
  return sockets;
}

std::unique_ptr<MultifdReceiver> Receive(unsigned channels, OutgoingMigration& migration, const SaveJob& job) {
  MultifdListener listener(job.qmp, job.guard);
  job.progress.Begin("saving", ByteCount{0});
  auto receiver = std::make_unique<MultifdReceiver>(
      Connect(listener, channels, migration, job),
      [&](const StreamContents& contents) { return MakeStore(job, contents); }, job.most_ram);
  constexpr unsigned kMain = 0;  // of the receiver's sockets; its channels follow
  migration.ReceiveAll(
      receiver->sockets(), [] {},
      [&](unsigned socket, const ChannelContext& context) {
        if (socket != kMain) return receiver->ReceiveChannel(socket - 1, context);
        receiver->ReceiveMain(context);
        job.found_state(receiver->guest().device_state);
      },
      job.progress, job.interrupt);
  return receiver;
}

std::unique_ptr<MultifdReceiver> ReceiveGuest(const SaveJob& job) {
  const unsigned channels = std::min(job.write.channels, kMaxMultifdChannels);
  OutgoingMigration migration(job.qmp, {"multifd"}, job.limits, job.guest, job.guard);
  migration.settings().SetParameter("multifd-channels", channels);
  migration.settings().SetParameterIfKnown("zero-page-detection", "multifd");
  return Receive(channels, migration, job);
}

}  // namespace

WriteTotals SaveFromMultifd(SaveJob& job) {
  const std::unique_ptr<MultifdReceiver> receiver = ReceiveGuest(job);
  job.release();
  return receiver->store().Complete(receiver->guest().contents.frame, receiver->guest().device_state, job.progress,
                                    job.interrupt);
}

}  // namespace vmsave
