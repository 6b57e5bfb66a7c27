#include "qemu/guest_pause.h"

#include <fmt/format.h>

#include "qemu/guest_facts.h"
#include "qemu/qmp_message.h"
#include "qemu/save_guard.h"

namespace vmsave {
namespace {

constexpr auto kQuitTimeout = std::chrono::seconds(30);
constexpr auto kEndTimeout = std::chrono::seconds(1);  // between the end of its QMP connection and that of a process
constexpr auto kEventTimeout = std::chrono::seconds(5);

// A guest in any other state was stopped by somebody or something else.
bool IsStoppedByMigration(const std::string& status) {
  return status == "postmigrate" || status == "finish-migrate";
}

std::chrono::microseconds Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch());
}

}  // namespace

void LetRun(QmpClient& qmp, bool run) {
  const bool runs = QueryStatus(qmp) == "running";
  if (run && !runs) qmp.Execute("cont");
  if (!run && runs) qmp.Execute("stop");
}

GuestPause::GuestPause(QmpClient& qmp, std::string name, const PauseState& state)
    : qmp_(qmp), name_(std::move(name)), process_(qmp.peer_pid()), state_(state) {}

GuestPause::GuestPause(QmpClient& qmp, std::string name, SaveGuard* guard)
    : GuestPause(qmp, std::move(name), PauseState{.was_running = QueryStatus(qmp) == "running"}) {
  guard_ = guard;
  TellGuard();
  qmp_.TakeEvents();  // those before do not matter
}

void GuestPause::TellGuard() {
  if (guard_ != nullptr) guard_->NotePause(state_);
}

class GuestPause::Command {
 public:
  explicit Command(QmpClient& qmp) : uninterrupted_(qmp), patience_(qmp, kPatienceWithDisks) {}

 private:
  QmpClient::Uninterrupted uninterrupted_;
  QmpClient::Patience patience_;
};

void GuestPause::Stop() {
  const Command command(qmp_);
  // Asked again: it may have stopped by itself meanwhile.
  const std::string status = QueryStatus(qmp_);
  if (IsStoppedByMigration(status)) return;
  state_.was_running = status == "running";
  if (!state_.was_running) return;
  state_.stopped = true;  // also where no answer comes
  TellGuard();
  qmp_.Execute("stop");
}

void GuestPause::FoundState(const std::optional<std::string>& run_state) {
  if (run_state && !state_.stopped) state_.was_running = *run_state == "running";
  TellGuard();
}

void GuestPause::Resume() {
  if (!state_.was_running || state_.resumed) return;
  const Command command(qmp_);
  const std::string status = QueryStatus(qmp_);
  if (state_.stopped ? status != "running" : IsStoppedByMigration(status)) qmp_.Execute("cont");
  state_.resumed = true;
  TellGuard();
}

void GuestPause::Undo(const std::exception& failure) {
  const QmpClient::Uninterrupted uninterrupted(qmp_);
  try {
    if (state_.stopped) Resume();
    QueryStatus(qmp_);  // also where nothing is to be undone: a QEMU that has ended explains every other failure
    Resume();
  } catch (const std::exception& undo_failure) {
    if (HasEnded()) {
      throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", name_), "its QEMU ended while it was being saved",
                  "no image was written; QEMU's own log may say why");
    }
    if (!state_.was_running || state_.resumed) return;
    throw Error(ErrorKind::kFailed, fmt::format("{} may stand still after a save that failed", name_),
                fmt::format("{}; and then: {}", failure.what(), undo_failure.what()),
                "once QEMU answers again: QMP migrate_cancel, then cont");
  }
}

// Where the process cannot be seen, a closed connection is taken for its end.
bool GuestPause::HasEnded() const {
  return qmp_.closed() && process_.AwaitEnd(kEndTimeout);
}

void GuestPause::Settle(AfterSave after) {
  const Command command(qmp_);
  TakeEvents();
  try {
    if (after == AfterSave::kQuit) Quit();
    if (after == AfterSave::kPause && QueryStatus(qmp_) == "running") qmp_.Execute("stop");
    if (after == AfterSave::kResume) Resume();
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kFailed, "the image is complete, but QEMU did not do as it was told", error.what(),
                "see to it that this guest does not run on beside a restored one");
  }
}

std::chrono::duration<double> GuestPause::length() {
  if (!state_.was_running) return {};
  TakeEvents();
  if (state_.resumed && stopped_at_) WaitForResume();
  return stood_still_ + (stopped_at_ ? Now() - *stopped_at_ : std::chrono::microseconds(0));
}

void GuestPause::WaitForResume() noexcept {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    qmp_.WaitEvent("RESUME", kEventTimeout);
    TakeEvents();
  } catch (const std::exception&) {
    return;  // it is only for a number
  }
}

void GuestPause::TakeEvents() noexcept {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    for (const QmpClient::Json& event : qmp_.TakeEvents()) Note(event);
  } catch (const std::exception&) {
    return;  // as above; and QEMU may be gone already
  }
}

void GuestPause::Note(const QmpClient::Json& event) {
  const auto time = EventTime(event);
  const std::string name = event.value("event", "");
  if (!time) return;
  if (name == "STOP" && !stopped_at_) stopped_at_ = time;
  if (name == "RESUME" && stopped_at_) {
    stood_still_ += *time - *stopped_at_;
    stopped_at_.reset();
  }
}

// Until the process has ended it holds its locks on disk images, and no other QEMU can have them.
void GuestPause::Quit() {
  try {
    qmp_.Execute("quit");
  } catch (const Error&) {
    if (!qmp_.closed()) throw;  // else it went before it could answer
  }
  const bool ended = process_.valid() ? process_.AwaitEnd(kQuitTimeout) : qmp_.WaitClosed(kQuitTimeout);
  if (!ended) throw Error(ErrorKind::kFailed, "QEMU was told to quit", "it is still there after 30 s");
}

}  // namespace vmsave
