#include "qemu/lazy_restore.h"

#include <thread>

#include "qemu/guest_facts.h"
#include "qemu/guest_pause.h"
#include "qemu/guest_ram.h"
#include "qemu/image_mark.h"
#include "qemu/migration_channel.h"
#include "qemu/migration_settings.h"
#include "qemu/restore_checks.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStatusPoll = std::chrono::milliseconds(1);
constexpr auto kPatienceWithLoading = std::chrono::minutes(10);
constexpr std::string_view kSeeQemu = "QEMU's own message says why";

class LazyRestore {
 public:
  explicit LazyRestore(const LazyTask& task) : task_(task), blocks_(QueryPostcopyBlocks(task.qmp, task.image)) {}

  LazySummary Run() {
    CheckQemuFits(task_.image, task_.qmp, QueryGuest(task_.qmp));
    RefuseMemoryInUse(task_.qmp, QueryMemoryBackends(task_.qmp));
    const MigrationSettings settings(task_.qmp, {kPostcopyCapability}, OnFailure::kLeave);
    MigrationChannel channel(task_.qmp);
    SetSocketBuffer(channel.socket());
    MarkImage(task_.qmp, task_.image);
    task_.qmp.Execute("stop");  // a QEMU without -S would start it by itself
    task_.qmp.Execute("migrate-incoming", {{"uri", channel.uri()}});
    summary_.start.running = task_.options.run.value_or(task_.image.was_running());
    task_.spares = HandSparesToQemu(task_.qmp, blocks_);
    task_.events.on_spares(task_.spares);
    task_.events.on_begin({summary_.start.running, blocks_});
    Send(channel.socket());
    const QmpClient::Uninterrupted uninterrupted(task_.qmp);
    task_.events.on_begun();
    ReturnPathDecoder decoder(blocks_);
    Serving serving(task_.qmp, task_.image, blocks_, task_.options.serve,
                    {.expected = task_.options.expected, .has_devices = false}, channel.socket(), decoder);
    Start(serving);
    const bool is_yet_to_run = summary_.start.running && !was_let_run_;
    summary_.outcome = serving.WaitForEnd(task_.progress, task_.interrupt, task_.events.serving, is_yet_to_run);
    if (!summary_.outcome.guest_ended) summary_.unfinished = FinishLazily(task_.qmp);
    summary_.elapsed = Clock::now() - start_;
    return summary_;
  }

 private:
  void Send(const FileDescriptor& socket) {
    task_.progress.Begin("devices", ByteCount{0});
    SocketSink sink(socket, task_.interrupt);
    ByteWriter head;
    AppendPostcopyHead(head, task_.image.contents().frame, blocks_);
    AppendPostcopyStart(head, DeviceSections(task_.image.device_state()).value());
    sink.Write(head.Take());
  }

  // Where the serving ends first, Serving::WaitForEnd tells why.
  void Start(Serving& serving) {
    const QmpClient::Watch watch(task_.qmp, [&] { serving.CheckGoesOn(task_.interrupt, task_.events.serving); });
    AwaitDevices(serving);  // a QEMU that is not served before it has them ends
    serving.LetEnd();
    if (serving.HasFailed()) return;
    try {
      LetRunOrNot();
    } catch (const Error& error) {
      if (task_.qmp.closed() || error.kind() == ErrorKind::kInterrupted || !serving.HasFailed()) throw;
    }
  }

  void AwaitDevices(const Serving& serving) {
    const QmpClient::Patience patience(task_.qmp, kPatienceWithLoading);
    try {
      while (QueryStatus(task_.qmp) == "inmigrate") {
        // Devices may not need what is damaged: then the guest is theirs, and can be served from another copy.
        serving.CheckHasNotEnded(task_.interrupt, task_.events.serving);
        std::this_thread::sleep_for(kStatusPoll);
      }
    } catch (const Error&) {
      if (!task_.qmp.closed() && !task_.qmp.WaitClosed(kPatienceWithEnd)) throw;
      throw Error(ErrorKind::kFailed, "cannot load the guest", "QEMU ended while it was given the devices", kSeeQemu);
    }
  }

  void LetRunOrNot() {
    const QmpClient::Patience patience(task_.qmp, kPatienceWithDisks);
    try {
      LetRun(task_.qmp, summary_.start.running);
    } catch (const QmpError&) {
      task_.events.on_refused();
      throw;
    }
    was_let_run_ = true;
    summary_.start.elapsed = Clock::now() - start_;
    task_.events.on_running(summary_.start);
  }

  static constexpr std::chrono::seconds kPatienceWithEnd{1};

  const LazyTask task_;
  const Clock::time_point start_ = Clock::now();
  std::vector<PostcopyBlock> blocks_;
  LazySummary summary_;
  bool was_let_run_ = false;
};

}  // namespace

std::string FinishLazily(QmpClient& qmp) {
  try {
    WaitMigrationCompleted(qmp, "cannot load the guest", kSeeQemu);
    RemoveImageMark(qmp);
    CloseSpares(qmp);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

LazySummary WithSizes(LazySummary summary, const Image& image) {
  summary.ram = image.contents().ram_length();
  summary.present = PresentBytes(image);
  return summary;
}

LazySummary RestoreLazily(const LazyTask& task) {
  return WithSizes(LazyRestore(task).Run(), task.image);
}

}  // namespace vmsave
