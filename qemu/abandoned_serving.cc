#include "qemu/abandoned_serving.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "io/held_process.h"
#include "qemu/guest_pause.h"
#include "qemu/lazy_recovery.h"
#include "qemu/migration_status.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kUntilSettled{60};
constexpr std::chrono::seconds kPatienceWithAnswer{1};
constexpr std::chrono::milliseconds kPoll{5};

// Whether QEMU has found that it needs no more. False where it waits for more, or answers nothing.
bool HasAllItNeeds(QmpClient& qmp) {
  const QmpClient::Patience patience(qmp, kPatienceWithAnswer);
  for (const auto give_up = Clock::now() + kUntilSettled; Clock::now() < give_up; std::this_thread::sleep_for(kPoll)) {
    try {
      const std::string status = QueryMigrationStatus(qmp);
      if (status == "completed") return true;
      if (status == "postcopy-paused") return false;
    } catch (const Error&) {
      return false;
    }
  }
  return false;
}

LazyOptions OptionsOf(const ServingRecord& serving) {
  LazyOptions options;
  options.serve.read = {serving.channels, serving.uring ? EngineKind::kUring : EngineKind::kSync,
                        serving.bypass_cache ? CacheUse::kBypass : CacheUse::kPageCache};
  options.serve.checks = serving.check_pages ? PageChecks::kOn : PageChecks::kOff;
  options.serve.fill.on = serving.fill;
  if (serving.fill_rate != 0) options.serve.fill.rate = ByteCount{serving.fill_rate};
  options.run = serving.run;
  return options;
}

FileDescriptor Duplicate(const FileDescriptor& file) {
  FileDescriptor copy(::fcntl(file.number(), F_DUPFD_CLOEXEC, 0), file.name());
  if (!copy.valid()) throw Error::FromErrno("cannot serve the guest its memory", errno);
  return copy;
}

}  // namespace

std::vector<PostcopyBlock> PostcopyBlocksOf(const ServingRecord& serving, const Image& image) {
  std::vector<PostcopyBlock> blocks;
  for (const StreamBlock& block : image.contents().blocks) {
    const std::size_t number = blocks.size();
    const bool is_known = number < serving.host_pages.size();
    blocks.push_back({block.name, block.length, is_known ? ByteCount{serving.host_pages[number]} : kPageSize});
  }
  return blocks;
}

std::string AbandonedServing::ServeOn() noexcept {
  try {
    return TryToServeOn();
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string AbandonedServing::TryToServeOn() {
  const ServingRecord& serving = *kept_.record.serving;
  const Interrupt never;
  QmpClient qmp(kept_.qmp, kept_.record.qmp_socket, never, serving.out_of_band ? QmpBand::kOut : QmpBand::kIn);
  try {
    if (HasAllItNeeds(qmp)) {
      if (serving.run) LetRun(qmp, *serving.run);
      FinishLazily(qmp);
      needs_operator_ = false;
      return "the guest had all of its memory";
    }
    const Image image(serving.image);
    LazyEvents events;
    events.on_begin = [&](const LazyBegin& begin) { kept_.spare = Duplicate(begin.spare); };
    events.on_running = [&](const LazyStart&) { kept_.record.serving->run.reset(); };
    Progress nobody_looks;
    const LazySummary summary = RecoverUnanswered(qmp, image, PostcopyBlocksOf(serving, image), std::move(kept_.spare),
                                                  OptionsOf(serving), events, nobody_looks, never);
    needs_operator_ = false;
    return summary.outcome.guest_ended ? "its guard served the guest on until that ended"
                                       : "its guard served the guest on, which has all of its memory now";
  } catch (const std::exception& error) {
    // QEMU gives up by itself where it was not given all of the devices.
    needs_operator_ = !qmp.closed() && !qmp.WaitClosed(kPatienceWithAnswer);
    if (!needs_operator_) return "its QEMU has ended, and the image is as it was";
    return fmt::format("the guest stands still: {}; vmrestore --recover --qmp {} {} goes on", error.what(),
                       kept_.record.qmp_socket, serving.image);
  }
}

KeptEnd AbandonedServing::Keep() const {
  return KeepUntilTaken(kept_, PeerPid(kept_.qmp));
}

}  // namespace vmsave
