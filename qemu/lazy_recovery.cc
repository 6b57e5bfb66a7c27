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
constexpr std::chrono::hours kAsLongAsItIsServed{24 * 365};

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
  LazyRecovery(const LazyTask& task, std::vector<PostcopyBlock> blocks)
      : task_(task), qmp_(task.qmp), blocks_(std::move(blocks)), decoder_(blocks_) {}

  LazySummary Run(const MigrationChannel& channel) {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    if (Reconnect(channel) == Need::kPages) {
      Serve(channel);
    } else {
      const QmpClient::Patience patience(qmp_, kPatienceWithDisks);
      LetStart();
    }
    if (!summary_.outcome.guest_ended) Finish();
    summary_.elapsed = Clock::now() - start_;
    return WithSizes(summary_, task_.image);
  }

 private:
  enum class Need { kPages, kNothing };

  // All of it is there before QEMU looks (AppendPostcopyRecovery). Refused for as long as QEMU has not seen the loss,
  // and where it needs no more; if it answers at all it is asked which.
  Need Reconnect(const MigrationChannel& channel) {
    SetSocketBuffer(channel.socket());
    ByteWriter out;
    AppendPostcopyRecovery(out, blocks_);
    const Interrupt never;
    SocketSink(channel.socket(), never).Write(out.Take());
    std::uint64_t question = qmp_.Begin("query-migrate");
    for (const Clock::time_point give_up = Clock::now() + kUntilLossIsSeen;;) {
      try {
        qmp_.ExecuteOutOfBand("migrate-recover", {{"uri", channel.uri()}});
        return Need::kPages;
      } catch (const QmpError&) {
        if (Clock::now() > give_up) throw;
      }
      std::this_thread::sleep_for(kPoll);
      const std::optional<QmpClient::Json> answer = qmp_.TryAnswer(question, std::chrono::milliseconds(0));
      if (!answer) continue;
      if (StringMember(*answer, "status") == "completed") return Need::kNothing;
      question = qmp_.Begin("query-migrate");
    }
  }

  void Serve(const MigrationChannel& channel) {
    ServeStart start = AwaitAnswers(channel.socket());
    Serving serving(qmp_, task_.image, blocks_, task_.options.serve, std::move(start), channel.socket(), decoder_);
    Start(serving, channel.name());
    summary_.outcome = serving.WaitForEnd(task_.progress, task_.interrupt, task_.events.serving);
  }

  // What it has of each block, and what it waits for.
  ServeStart AwaitAnswers(const FileDescriptor& socket) {
    const Clock::time_point give_up = Clock::now() + kUntilAnswered;
    const Interrupt never;  // QEMU is in the middle of it
    SocketReader reader(socket, never, [&] {
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

  // QEMU's main thread may have waited for a page, and answers once that is there. Where the serving ends first,
  // Serving::WaitForEnd tells why.
  void Start(const Serving& serving, const std::string& used_channel) {
    const QmpClient::Patience patience(qmp_, kAsLongAsItIsServed);
    const QmpClient::Watch watch(qmp_, [&] { serving.CheckGoesOn(task_.interrupt, task_.events.serving); });
    try {
      QueryStatus(qmp_);  // of two descriptors that wait for it QEMU would lose one
      if (task_.events.on_begin) RefillSpares(used_channel);
      LetStart();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInterrupted || !serving.HasFailed()) throw;
    }
  }

  // The one in use is not among them any more.
  void RefillSpares(const std::string& used) {
    LazyBegin begin{task_.options.run, blocks_};
    begin.spares.push_back(HandSpareToQemu(qmp_, used));
    task_.events.on_begin(std::move(begin));
  }

  void LetStart() {
    if (task_.options.run) LetRun(qmp_, *task_.options.run);
    summary_.start = {Clock::now() - start_, QueryStatus(qmp_) == "running"};
    task_.events.on_running(summary_.start);
  }

  const LazyTask task_;
  QmpClient& qmp_;
  const Clock::time_point start_ = Clock::now();
  std::vector<PostcopyBlock> blocks_;
  ReturnPathDecoder decoder_;
  LazySummary summary_;
};

}  // namespace

LazySummary RecoverLazily(const LazyTask& task) {
  AwaitPaused(task.qmp);
  CheckIsImages(task.qmp, task.image);
  const std::vector<PostcopyBlock> blocks = QueryPostcopyBlocks(task.qmp, task.image);
  const MigrationChannel channel(task.qmp);
  if (task.events.on_begin) task.events.on_begin({task.options.run, blocks, HandSparesToQemu(task.qmp)});
  return LazyRecovery(task, blocks).Run(channel);
}

LazySummary RecoverKept(const LazyTask& task, const ServingRecord& record, std::vector<SpareChannel>& spares) {
  CheckIsOf(task.image, record.image_identity);
  if (spares.empty()) return RecoverLazily(task);
  SpareChannel spare = std::move(spares.back());
  spares.pop_back();
  if (task.events.on_spare_used) task.events.on_spare_used(spare.name);
  const MigrationChannel channel(std::move(spare.socket), std::move(spare.name));
  return LazyRecovery(task, BlocksOf(record, task.image)).Run(channel);
}

}  // namespace vmsave
