#include "qemu/lazy_recovery.h"

#include <fmt/format.h>

#include <array>
#include <thread>

#include "qemu/guest_facts.h"
#include "qemu/guest_pause.h"
#include "qemu/image_mark.h"
#include "qemu/migration_channel.h"
#include "qemu/migration_status.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(5);
constexpr std::chrono::seconds kUntilLossIsSeen{10};  // by QEMU, of a server that has just been killed
constexpr std::chrono::seconds kUntilAnswered{60};

class LazyRecovery {
 public:
  LazyRecovery(QmpClient& qmp, const Image& image, const LazyOptions& options, const LazyEvents& events,
               Progress& progress, const Interrupt& interrupt)
      : qmp_(qmp),
        image_(image),
        options_(options),
        events_(events),
        progress_(progress),
        interrupt_(interrupt),
        blocks_(QueryPostcopyBlocks(qmp, image)),
        decoder_(blocks_) {}

  LazySummary Run() {
    AwaitPaused();
    if (const std::string machine = QueryGuest(qmp_).machine; machine != image_.contents().frame.machine) {
      Refuse(fmt::format("it was saved on machine type {}, QEMU has {}", image_.contents().frame.machine, machine));
    }
    CheckImageMark(qmp_, image_);
    const MigrationChannel channel(qmp_);
    SetSocketBuffer(channel.socket());
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    Reconnect(channel);
    Serving serving(qmp_, image_, blocks_, options_.serve, AwaitAnswers(channel.socket()), channel.socket(), decoder_);
    TellStart();
    summary_.outcome = serving.WaitForEnd(progress_, interrupt_, events_.on_interrupt);
    if (!summary_.outcome.guest_ended) Finish();
    summary_.elapsed = Clock::now() - start_;
    return summary_;
  }

 private:
  [[noreturn]] void Refuse(std::string_view why) const {
    throw Error(ErrorKind::kFailed, fmt::format("cannot go on with the guest at {}", qmp_.socket_path()), why);
  }

  void AwaitPaused() {
    const Clock::time_point give_up = Clock::now() + kUntilLossIsSeen;
    std::string status = QueryMigrationStatus(qmp_);
    while (status == "postcopy-active" && Clock::now() < give_up) {
      std::this_thread::sleep_for(kPoll);
      status = QueryMigrationStatus(qmp_);
    }
    if (status == "postcopy-active") Refuse("somebody serves it its memory already");
    if (status == "completed") Refuse("it has all of its memory");
    if (status != "postcopy-paused") Refuse(fmt::format("it waits for no memory (status {})", status));
  }

  // All of it is there before QEMU looks (AppendPostcopyRecovery).
  void Reconnect(const MigrationChannel& channel) {
    ByteWriter out;
    AppendPostcopyRecovery(out, blocks_);
    const Interrupt never;
    SocketSink(channel.socket(), never).Write(out.Take());
    qmp_.Execute("migrate-recover", {{"uri", channel.uri()}});
  }

  // What it has of each block, and what it waits for.
  ServeStart AwaitAnswers(const FileDescriptor& socket) {
    const Clock::time_point give_up = Clock::now() + kUntilAnswered;
    SocketReader reader(socket, interrupt_, [&] {
      if (Clock::now() > give_up) Refuse("QEMU does not answer");
    });
    ServeStart start;
    start.received.resize(blocks_.size());
    std::size_t known = 0;
    bool accepted = false;
    std::array<std::byte, 64 << 10> bytes;
    while (!accepted || known < blocks_.size()) {
      const std::size_t count = reader.ReadSome(bytes);
      if (count == 0) Refuse("QEMU has closed the new connection");
      decoder_.Feed(std::span(bytes).first(count));
      while (std::optional<PostcopyAnswer> answer = decoder_.Next()) {
        if (auto* received = std::get_if<ReceivedPages>(&*answer)) {
          start.received[received->block] = std::move(received->pages);
          ++known;
        } else if (const auto* request = std::get_if<PageRequest>(&*answer)) {
          start.requests.push_back(*request);
        } else if (std::holds_alternative<ResumeAccepted>(*answer)) {
          accepted = true;
        } else {
          Refuse("QEMU gave up");
        }
      }
    }
    return start;
  }

  // What was set for the migration by somebody who could not put it back.
  void Finish() {
    FinishLazily(qmp_);
    qmp_.Execute("migrate-set-capabilities",
                 {{"capabilities", {{{"capability", kPostcopyCapability}, {"state", false}}}}});
  }

  void TellStart() {
    const QmpClient::Patience patience(qmp_, kPatienceWithDisks);
    if (options_.run) LetRun(qmp_, *options_.run);
    summary_.start = {Clock::now() - start_, QueryStatus(qmp_) == "running"};
    events_.on_running(summary_.start);
  }

  QmpClient& qmp_;
  const Image& image_;
  const LazyOptions& options_;
  const LazyEvents& events_;
  Progress& progress_;
  const Interrupt& interrupt_;
  const Clock::time_point start_ = Clock::now();
  std::vector<PostcopyBlock> blocks_;
  ReturnPathDecoder decoder_;
  LazySummary summary_;
};

}  // namespace

LazySummary RecoverLazily(QmpClient& qmp, const Image& image, const LazyOptions& options, const LazyEvents& events,
                          Progress& progress, const Interrupt& interrupt) {
  LazySummary summary = LazyRecovery(qmp, image, options, events, progress, interrupt).Run();
  summary.ram = image.contents().ram_length();
  summary.present = PresentBytes(image);
  return summary;
}

}  // namespace vmsave
