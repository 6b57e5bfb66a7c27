#include "qemu/lazy_restore.h"

#include <sys/socket.h>

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

// What has been written stands before the answer to the next question.
constexpr int kSocketBufferBytes = 128 << 10;

class LazyRestore {
 public:
  LazyRestore(QmpClient& qmp, const Image& image, const LazyOptions& options, const LazyEvents& events,
              Progress& progress, const Interrupt& interrupt)
      : qmp_(qmp),
        image_(image),
        options_(options),
        events_(events),
        progress_(progress),
        interrupt_(interrupt),
        blocks_(QueryPostcopyBlocks(qmp, image)) {}

  LazySummary Run() {
    CheckQemuFits(image_, qmp_, QueryGuest(qmp_));
    RefuseMemoryInUse(qmp_, QueryMemoryBackends(qmp_));
    const MigrationSettings settings(qmp_, {kPostcopyCapability}, OnFailure::kLeave);
    MigrationChannel channel(qmp_);
    SetSocketBuffer(channel.socket());
    const FileDescriptor spare = HandSocketToQemu(qmp_, kSpareName);
    MarkImage(qmp_, image_);
    qmp_.Execute("stop");  // a QEMU without -S would start it by itself
    qmp_.Execute("migrate-incoming", {{"uri", channel.uri()}});
    summary_.start.running = options_.run.value_or(image_.was_running());
    events_.on_begin({summary_.start.running, blocks_, spare});
    Send(channel.socket());
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    events_.on_begun();
    ReturnPathDecoder decoder(blocks_);
    Serving serving(qmp_, image_, blocks_, options_.serve, {.early = options_.early, .has_devices = false},
                    channel.socket(), decoder);
    AwaitDevices(serving);
    serving.LetEnd();
    LetRunOrNot();
    summary_.outcome = serving.WaitForEnd(progress_, interrupt_, events_.serving);
    if (!summary_.outcome.guest_ended) FinishLazily(qmp_);
    summary_.elapsed = Clock::now() - start_;
    return summary_;
  }

 private:
  void Send(const FileDescriptor& socket) {
    progress_.Begin("devices", ByteCount{0});
    SocketSink sink(socket, interrupt_);
    ByteWriter head;
    AppendPostcopyHead(head, image_.contents().frame, blocks_);
    AppendPostcopyStart(head, DeviceSections(image_.device_state()).value());
    sink.Write(head.Take());
  }

  void AwaitDevices(Serving& serving) {
    const QmpClient::Patience patience(qmp_, kPatienceWithLoading);
    try {
      while (QueryStatus(qmp_) == "inmigrate") {
        serving.CheckGoesOn();
        std::this_thread::sleep_for(kStatusPoll);
      }
    } catch (const Error&) {
      if (!qmp_.closed() && !qmp_.WaitClosed(kPatienceWithEnd)) throw;
      throw Error(ErrorKind::kFailed, "cannot load the guest", "QEMU ended while it was given the devices", kSeeQemu);
    }
  }

  void LetRunOrNot() {
    const QmpClient::Patience patience(qmp_, kPatienceWithDisks);
    LetRun(qmp_, summary_.start.running);
    summary_.start.elapsed = Clock::now() - start_;
    events_.on_running(summary_.start);
  }

  static constexpr std::chrono::seconds kPatienceWithEnd{1};

  QmpClient& qmp_;
  const Image& image_;
  const LazyOptions& options_;
  const LazyEvents& events_;
  Progress& progress_;
  const Interrupt& interrupt_;
  const Clock::time_point start_ = Clock::now();
  std::vector<PostcopyBlock> blocks_;
  LazySummary summary_;
};

// Where there is one: it is in the connection's hands that handed it over.
void CloseSpare(QmpClient& qmp) {
  try {
    qmp.Execute("closefd", {{"fdname", kSpareName}});
  } catch (const QmpError&) {
    return;
  }
}

}  // namespace

void SetSocketBuffer(const FileDescriptor& socket) {
  ::setsockopt(socket.number(), SOL_SOCKET, SO_SNDBUF, &kSocketBufferBytes, sizeof(kSocketBufferBytes));
}

void FinishLazily(QmpClient& qmp) {
  WaitMigrationCompleted(qmp, "cannot load the guest", kSeeQemu);
  RemoveImageMark(qmp);
  CloseSpare(qmp);
}

LazySummary RestoreLazily(QmpClient& qmp, const Image& image, const LazyOptions& options, const LazyEvents& events,
                          Progress& progress, const Interrupt& interrupt) {
  LazySummary summary = LazyRestore(qmp, image, options, events, progress, interrupt).Run();
  summary.ram = image.contents().ram_length();
  summary.present = PresentBytes(image);
  return summary;
}

}  // namespace vmsave
