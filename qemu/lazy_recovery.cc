#include "qemu/lazy_recovery.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <thread>
#include <utility>

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
constexpr std::size_t kMostRequests = std::size_t{1} << 20;  // before it has told what it has; a thread waits for one
constexpr std::chrono::hours kAsLongAsItIsServed{24 * 365};  // serving that ends otherwise is told by the watch

[[noreturn]] void Refuse(const QmpClient& qmp, std::string_view why) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot go on with the guest at {}", qmp.socket_path()), why);
}

void AwaitPaused(QmpClient& qmp) {
  const Clock::time_point give_up = Clock::now() + kUntilLossIsSeen;
  std::string status = QueryMigrationStatus(qmp);
  while (status.starts_with("postcopy-") && status != "postcopy-paused" && Clock::now() < give_up) {
    std::this_thread::sleep_for(kPoll);
    status = QueryMigrationStatus(qmp);
  }
  if (status == "postcopy-active") Refuse(qmp, "somebody serves it its memory already: vmrestore, or its guard");
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
  LazyRecovery(const LazyTask& task, std::vector<PostcopyBlock> blocks)
      : task_(task), qmp_(task.qmp), blocks_(std::move(blocks)), decoder_(blocks_) {}

  // REQUIRES: there is a spare.
  LazySummary Run() {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    if (const std::optional<MigrationChannel> channel = NewChannel()) {
      Serve(*channel);
    } else {
      const QmpClient::Patience patience(qmp_, kPatienceWithDisks);
      LetStart();
    }
    if (!summary_.outcome.guest_ended) Finish();
    summary_.elapsed = Clock::now() - start_;
    return WithSizes(summary_, task_.image);
  }

 private:
  // Nothing where QEMU has all of its memory, which it tells if it answers at all. It refuses for as long as it has not
  // seen the loss of the connection before.
  std::optional<MigrationChannel> NewChannel() {
    SpareChannel spare = TakeSpare();
    question_ = qmp_.Begin("query-migrate");
    for (const Clock::time_point give_up = Clock::now() + kUntilLossIsSeen;;) {
      try {
        qmp_.ExecuteOutOfBand("migrate-recover", {{"uri", UriOf(spare)}});
        used_ = spare.name;
        return std::optional<MigrationChannel>(std::in_place, std::move(spare.socket), std::move(spare.name));
      } catch (const QmpError&) {
        if (Clock::now() > give_up) {
          PutBack(std::move(spare));
          throw;
        }
      }
      std::this_thread::sleep_for(kPoll);
      const std::optional<QmpClient::Json> answer = qmp_.TryAnswer(*question_, std::chrono::milliseconds(0));
      if (!answer) continue;
      question_.reset();
      if (StringMember(*answer, "status") == "completed") {
        PutBack(std::move(spare));
        return std::nullopt;
      }
      question_ = qmp_.Begin("query-migrate");
    }
  }

  SpareChannel TakeSpare() {
    SpareChannel spare = std::move(task_.spares.back());
    task_.spares.pop_back();
    task_.events.on_spare_used(spare.name);
    return spare;
  }

  // QEMU still has its other end, and has not looked at it.
  void PutBack(SpareChannel spare) {
    task_.spares.push_back(std::move(spare));
    task_.events.on_spares(std::span(task_.spares).last(1));
  }

  void Serve(const MigrationChannel& channel) {
    ServeStart start = AwaitAnswers(channel.socket());
    start.expected = task_.options.expected;
    start.has_devices = false;  // or its main thread waits for them, for all that can be known
    Serving serving(qmp_, task_.image, blocks_, task_.options.serve, std::move(start), channel.socket(), decoder_);
    Start(serving);
    const bool is_yet_to_run = task_.options.run.value_or(false) && !was_let_run_;
    summary_.outcome = serving.WaitForEnd(task_.progress, task_.interrupt, task_.events.serving, is_yet_to_run);
  }

  // What it has of each block, and what it waits for.
  ServeStart AwaitAnswers(const FileDescriptor& socket) {
    const Clock::time_point give_up = Clock::now() + kUntilAnswered;
    const Interrupt never;  // QEMU is in the middle of it
    const auto check_time = [&] {
      if (Clock::now() > give_up) Refuse(qmp_, "QEMU does not answer");
    };
    SocketReader reader(socket, never, check_time);
    ServeStart start;
    start.received.resize(blocks_.size());
    std::size_t known = 0;
    bool accepted = false;
    std::array<std::byte, 64 << 10> bytes;
    while (!accepted || known < blocks_.size()) {
      check_time();  // it may send without end, too
      const std::size_t count = reader.ReadSome(bytes);
      if (count == 0) Refuse(qmp_, "QEMU has closed the new connection");
      decoder_.Feed(std::span(bytes).first(count));
      while (std::optional<PostcopyAnswer> answer = decoder_.Next()) {
        if (auto* received = std::get_if<ReceivedPages>(&*answer)) {
          start.received[received->block] = std::move(received->pages);
          ++known;
        } else if (const auto* request = std::get_if<PageRequest>(&*answer)) {
          if (start.requests.size() == kMostRequests) Refuse(qmp_, "QEMU asks for pages without end");
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
    summary_.unfinished = FinishLazily(qmp_);
    if (!summary_.unfinished.empty()) return;
    try {
      qmp_.Execute("migrate-set-capabilities",
                   {{"capabilities", {{{"capability", kPostcopyCapability}, {"state", false}}}}});
    } catch (const Error& error) {
      summary_.unfinished = error.what();
    }
  }

  // QEMU's main thread may have waited for a page, and answers once that is there. Where the serving ends first,
  // Serving::WaitForEnd tells why.
  void Start(Serving& serving) {
    const QmpClient::Watch watch(qmp_, [&] { serving.CheckGoesOn(task_.interrupt, task_.events.serving); });
    try {
      AwaitMainThread();
      const QmpClient::Patience patience(qmp_, kAsLongAsItIsServed);
      TryToRefillSpares();  // before QEMU may be done: who goes on in our place asks over one whether it is
      serving.LetEnd();
      LetStart();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInterrupted || (!serving.HasFailed() && !qmp_.closed())) throw;
    }
  }

  // Nothing else is asked before: of two descriptors that wait for it QEMU would lose one, and there is little room for
  // commands that do.
  void AwaitMainThread() {
    if (!question_) question_ = qmp_.Begin("query-migrate");
    while (!qmp_.TryAnswer(*question_, kAsLongAsItIsServed)) {
    }
  }

  // The guest is served, with or without.
  void TryToRefillSpares() {
    try {
      task_.spares.push_back(HandSpareToQemu(qmp_, blocks_, used_));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInterrupted) throw;
      return;
    }
    task_.events.on_spares(std::span(task_.spares).last(1));
  }

  void LetStart() {
    if (task_.options.run) LetRun(qmp_, *task_.options.run);
    was_let_run_ = true;
    summary_.start = {Clock::now() - start_, QueryStatus(qmp_) == "running"};
    task_.events.on_running(summary_.start);
  }

  const LazyTask task_;
  QmpClient& qmp_;
  const Clock::time_point start_ = Clock::now();
  std::vector<PostcopyBlock> blocks_;
  ReturnPathDecoder decoder_;
  std::optional<std::uint64_t> question_;  // whether QEMU has all of its memory; it has not answered yet
  std::string used_;                       // the spare
  bool was_let_run_ = false;
  LazySummary summary_;
};

}  // namespace

LazySummary RecoverLazily(const LazyTask& task) {
  AwaitPaused(task.qmp);
  CheckIsImages(task.qmp, task.image);
  const std::vector<PostcopyBlock> blocks = QueryPostcopyBlocks(task.qmp, task.image);
  task.spares = HandSparesToQemu(task.qmp, blocks);
  task.events.on_spares(task.spares);
  task.events.on_begin({task.options.run, blocks});
  return LazyRecovery(task, blocks).Run();
}

LazySummary RecoverKept(const LazyTask& task, const ServingRecord& record) {
  CheckIsOf(task.image, record.image_identity);
  if (task.spares.empty()) return RecoverLazily(task);
  const std::vector<PostcopyBlock> blocks = BlocksOf(record, task.image);
  task.events.on_begin({task.options.run, blocks});
  return LazyRecovery(task, blocks).Run();
}

}  // namespace vmsave
