#include "qemu/unserved_guest.h"

#include <fmt/format.h>
#include <poll.h>

#include <utility>

#include "qemu/lazy_recovery.h"
#include "reader/working_set_file.h"

namespace vmsave {
namespace {

constexpr int kUntilEndIsSeenMs = 1000;
constexpr std::string_view kQemuHasEnded = "its QEMU has ended, and the image is as it was";

// Nothing where that is not known: the restore is faster with it, and needs it not.
std::deque<WorkChunk> ExpectedPages(const Image& image) {
  try {
    const std::optional<WorkingSet> known = ReadWorkingSet(image);
    return known ? ChunksOf(image, *known) : std::deque<WorkChunk>();
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

void UnservedGuest::FinishTaking() {
  if (kept_.hand_over.valid()) vmsave::FinishTaking(std::exchange(kept_.hand_over, {}));
}

bool UnservedGuest::has_ended() const {
  pollfd poller{kept_.qmp.number(), POLLRDHUP, 0};
  return ::poll(&poller, 1, kUntilEndIsSeenMs) > 0;
}

std::string UnservedGuest::ServeOn(const std::function<void()>& on_served) {
  ServingRecord& serving = *kept_.record.serving;
  const Interrupt never;
  try {
    QmpClient qmp = Reconnect(kept_, never);
    const Image image(serving.image);
    LazyEvents events;
    events.on_running = [&](const LazyStart&) {
      serving.run.reset();
      on_served();
    };
    Progress nobody_looks;
    LazyOptions options = OptionsOf(serving);
    options.expected = ExpectedPages(image);
    const LazySummary summary = RecoverKept({qmp, kept_.spares, image, options, events, nobody_looks, never}, serving);
    kept_.qmp.Close();
    if (summary.outcome.guest_ended) {
      return fmt::format("its guard served the guest on from {} until that ended", serving.image);
    }
    const std::string unfinished = summary.unfinished.empty() ? "" : fmt::format(", but: {}", summary.unfinished);
    return fmt::format("its guard served the guest on from {}, which has all of its memory now{}", serving.image,
                       unfinished);
  } catch (const UnservedError& error) {
    if (!has_ended()) return fmt::format("the guest stands still: {}", error.what());
    kept_.qmp.Close();
    return std::string(kQemuHasEnded);
  } catch (const std::exception& error) {
    if (!has_ended()) return TellFailure(error.what());
    kept_.qmp.Close();
    return std::string(kQemuHasEnded);  // it gives up where it was not given all of the devices
  }
}

std::string UnservedGuest::TellFailure(const std::string& why) const {
  return fmt::format("the guest stands still: {}; {} goes on", why,
                     RecoverCommand(kept_.record.qmp_socket, kept_.record.serving->image));
}

}  // namespace vmsave
