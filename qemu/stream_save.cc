// The guest's RAM over one connection.
#include <algorithm>

#include "format/stream_reader.h"
#include "qemu/received_guest.h"
#include "qemu/save_job.h"
#include "qemu/stream_receiver.h"
#include "writer/complete_image.h"
#include "writer/page_spreader.h"
#include "writer/sequential_writer.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

constexpr unsigned kLeastInFlight = 2;  // so that one buffer is filled while another is written

// Reads a stream and writes all of it down as it comes: from the socket straight into the buffers that are written.
class RecordedSource : public ByteSource {
 public:
  RecordedSource(SocketReader& reader, SequentialWriter& writer) : reader_(reader), writer_(writer) {}

  std::size_t ReadSome(std::span<std::byte> out) override {
    if (ready_.empty()) Fill();
    const std::size_t count = std::min(out.size(), ready_.size());
    std::copy_n(ready_.begin(), count, out.begin());
    Pass(count);
    return count;
  }

  FileOffset position() const override { return position_; }
  std::string_view name() const override { return reader_.name(); }

  void SkipTo(FileOffset target) override {
    for (std::uint64_t left = (target - position_).value(); left > 0;) {
      if (ready_.empty()) Fill();
      const std::size_t count = std::min<std::uint64_t>(left, ready_.size());
      if (count == 0) throw Error(ErrorKind::kDamaged, "cannot read the guest's migration stream", "it ends early");
      Pass(count);
      left -= count;
    }
  }

  void StepBack() override {
    ready_ = {ready_.data() - 1, ready_.size() + 1};
    position_ = FileOffset{position_.value() - 1};
  }

 private:
  void Fill() {
    const std::span<std::byte> room = writer_.Room();
    const std::size_t got = reader_.ReadSome(room);
    writer_.Took(got);
    ready_ = room.first(got);
  }

  void Pass(std::size_t count) {
    ready_ = ready_.subspan(count);
    position_ += ByteCount{count};
  }

  SocketReader& reader_;
  SequentialWriter& writer_;
  FileOffset position_;
  std::span<const std::byte> ready_;  // written down and not passed on yet
};

void Receive(SaveJob& job, const std::function<void(SocketReader&)>& receive) {
  std::set<std::string> capabilities;
  if (job.live == LiveMode::kSnapshot) capabilities.insert("background-snapshot");
  OutgoingMigration migration(job.qmp, capabilities, job.limits, job.guest, job.guard);
  job.progress.Begin("saving", ByteCount{0});
  ReceiveStream(job.qmp, migration, receive, job.progress, job.interrupt);
}

WriteTotals RecordVersion2(SaveJob& job) {
  SequentialWriter writer(job.file, job.write.engine, std::max(job.write.channels, kLeastInFlight));
  writer.Append(EncodeBeforeStream(job.description, job.was_running));
  PresenceSink presence;
  std::vector<std::byte> device_state;
  ByteCount length;
  Receive(job, [&](SocketReader& reader) {
    RecordedSource source(reader, writer);
    ReadStreamUpToDevices(source, presence, {.most_ram = job.most_ram});
    device_state = ReadDeviceState(source);
    job.found_state(device_state);
    length = writer.position() - FileOffset{0};
    writer.Finish();  // on the thread that began the writes: what a thread leaves in flight may end with it
  });
  job.release();
  CompleteImage(job.file, job.progress);
  return CountTotals(presence.Take(), length);
}

WriteTotals SpreadVersion3(SaveJob& job) {
  PageSpreader spreader(job.write.channels, [&](const StreamContents& contents) { return MakeStore(job, contents); });
  ReceivedGuest guest;
  Receive(job, [&](SocketReader& reader) {
    SocketSource source(reader);
    guest.contents = ReadStreamUpToDevices(source, spreader, {.most_ram = job.most_ram});
    guest.device_state = ReadDeviceState(source);
    job.found_state(guest.device_state);
  });
  const std::unique_ptr<PageStore> store = spreader.Finish();
  job.release();
  return store->Complete(guest.contents.frame, guest.device_state, job.progress, job.interrupt);
}

}  // namespace

WriteTotals SaveFromStream(SaveJob& job) {
  return job.version == ImageVersion::k2 ? RecordVersion2(job) : SpreadVersion3(job);
}

}  // namespace vmsave
