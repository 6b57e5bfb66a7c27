#include "qemu/unserved_guest.h"

#include <fmt/format.h>
#include <poll.h>

#include <utility>

#include "qemu/lazy_recovery.h"

namespace vmsave {
namespace {

constexpr int kUntilEndIsSeenMs = 1000;

}  // namespace

void UnservedGuest::FinishTaking() {
  if (kept_.hand_over.valid()) vmsave::FinishTaking(std::exchange(kept_.hand_over, {}));
}

bool UnservedGuest::has_ended() const {
  pollfd poller{kept_.qmp.number(), POLLRDHUP, 0};
  return ::poll(&poller, 1, kUntilEndIsSeenMs) > 0;
}

std::string UnservedGuest::ServeOn() {
  ServingRecord& serving = *kept_.record.serving;
  const Interrupt never;
  try {
    QmpClient qmp = Reconnect(kept_, never);
    const Image image(serving.image);
    LazyEvents events;
    events.on_running = [&](const LazyStart&) { serving.run.reset(); };
    Progress nobody_looks;
    const LazyOptions options = OptionsOf(serving);
    const LazySummary summary = RecoverKept({qmp, kept_.spares, image, options, events, nobody_looks, never}, serving);
    kept_.qmp.Close();
    if (summary.outcome.guest_ended) return "its guard served the guest on until that ended";
    const std::string unfinished = summary.unfinished.empty() ? "" : fmt::format(", but: {}", summary.unfinished);
    return fmt::format("its guard served the guest on, which has all of its memory now{}", unfinished);
  } catch (const std::exception& error) {
    if (!has_ended()) return TellFailure(error.what());
    kept_.qmp.Close();
    return "its QEMU has ended, and the image is as it was";  // it gives up where it was not given all of the devices
  }
}

std::string UnservedGuest::TellFailure(const std::string& why) const {
  const bool has_advice = why.find("--recover") != std::string::npos;
  const std::string advice =
      fmt::format("; vmrestore --recover --qmp {} {} goes on", kept_.record.qmp_socket, kept_.record.serving->image);
  return fmt::format("the guest stands still: {}{}", why, has_advice ? "" : advice);
}

}  // namespace vmsave
