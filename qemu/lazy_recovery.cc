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
constexpr std::chrono::seconds kPatienceWithAnswer{1};

[[noreturn]] void Refuse(const QmpClient& qmp, std::string_view why) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot go on with the guest at {}", qmp.socket_path()), why);
}

void AwaitPaused(QmpClient& qmp) {
  const Clock::time_point give_up = Clock::now() + kUntilLossIsSeen;
  std::string status = QueryMigrationStatus(qmp);
  while (status == "postcopy-active" && Clock::now() < give_up) {
    std::this_thread::sleep_for(kPoll);
    status = QueryMigrationStatus(qmp);
  }
  if (status == "postcopy-active") Refuse(qmp, "somebody serves it its memory already");
  if (status == "completed") Refuse(qmp, "it has all of its memory");
  if (status != "postcopy-paused") Refuse(qmp, fmt::format("it waits for no memory (status {})", status));
}

void CheckIsImages(QmpClient& qmp, const Image& image) {
  if (const std::string machine = QueryGuest(qmp).machine; machine != image.contents().frame.machine) {
    Refuse(qmp, fmt::format("it was saved on machine type {}, QEMU has {}", image.contents().frame.machine, machine));
  }
  CheckImageMark(qmp, image);
}

class LazyRecovery {
 public:
  LazyRecovery(QmpClient& qmp, const Image& image, std::vector<PostcopyBlock> blocks, const LazyOptions& options,
               const LazyEvents& events, Progress& progress, const Interrupt& interrupt)
      : qmp_(qmp),
        image_(image),
        options_(options),
        events_(events),
        progress_(progress),
        interrupt_(interrupt),
        blocks_(std::move(blocks)),
        decoder_(blocks_) {}

  LazySummary Run(const MigrationChannel& channel) {
    SetSocketBuffer(channel.socket());
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    Reconnect(channel);
    Serving serving(qmp_, image_, blocks_, options_.serve, AwaitAnswers(channel.socket()), channel.socket(), decoder_);
    if (AwaitQemu(serving)) TellStart();
    summary_.outcome = serving.WaitForEnd(progress_, interrupt_, events_.serving);
    if (!summary_.outcome.guest_ended) Finish();
    summary_.elapsed = Clock::now() - start_;
    summary_.ram = image_.contents().ram_length();
    summary_.present = PresentBytes(image_);
    return summary_;
  }

 private:
  // All of it is there before QEMU looks (AppendPostcopyRecovery). Refused for as long as QEMU has not seen the loss.
  void Reconnect(const MigrationChannel& channel) {
    ByteWriter out;
    AppendPostcopyRecovery(out, blocks_);
    const Interrupt never;
    SocketSink(channel.socket(), never).Write(out.Take());
    for (const Clock::time_point give_up = Clock::now() + kUntilLossIsSeen;; std::this_thread::sleep_for(kPoll)) {
      try {
        qmp_.ExecuteOutOfBand("migrate-recover", {{"uri", channel.uri()}});
        return;
      } catch (const QmpError&) {
        if (Clock::now() > give_up) throw;
      }
    }
  }

  // What it has of each block, and what it waits for.
  ServeStart AwaitAnswers(const FileDescriptor& socket) {
    const Clock::time_point give_up = Clock::now() + kUntilAnswered;
    SocketReader reader(socket, interrupt_, [&] {
      if (Clock::now() > give_up) Refuse(qmp_, "QEMU does not answer");
    });
    ServeStart start;
    start.received.resize(blocks_.size());
    std::size_t known = 0;
    bool accepted = false;
    std::array<std::byte, 64 << 10> bytes;
    while (!accepted || known < blocks_.size()) {
      const std::size_t count = reader.ReadSome(bytes);
      if (count == 0) Refuse(qmp_, "QEMU has closed the new connection");
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
          Refuse(qmp_, "QEMU gave up");
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

  // Its main thread may have waited for a page, and answers once that is there. False where serving ends before.
  bool AwaitQemu(const Serving& serving) {
    const QmpClient::Patience patience(qmp_, kPatienceWithAnswer);
    while (!serving.IsAtEnd()) {
      try {
        QueryStatus(qmp_);
        return true;
      } catch (const Error&) {
        if (qmp_.closed()) return false;
      }
    }
    return false;
  }

  void TellStart() {
    const QmpClient::Patience patience(qmp_, kPatienceWithDisks);
    if (events_.on_begin) events_.on_begin({options_.run, blocks_, HandSocketToQemu(qmp_, kSpareName)});
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
  AwaitPaused(qmp);
  CheckIsImages(qmp, image);
  const MigrationChannel channel(qmp);
  return LazyRecovery(qmp, image, QueryPostcopyBlocks(qmp, image), options, events, progress, interrupt).Run(channel);
}

LazySummary RecoverUnanswered(QmpClient& qmp, const Image& image, std::vector<PostcopyBlock> blocks,
                              FileDescriptor spare, const LazyOptions& options, const LazyEvents& events,
                              Progress& progress, const Interrupt& interrupt) {
  const MigrationChannel channel(std::move(spare), kSpareName);
  return LazyRecovery(qmp, image, std::move(blocks), options, events, progress, interrupt).Run(channel);
}

}  // namespace vmsave
