#include "qemu/guest_pause.h"

#include <fmt/format.h>

#include "io/new_file.h"
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

bool NeedsToRunBeforeSave(QmpClient& qmp) {
  return QueryStatus(qmp) == "postmigrate";
}

GuestPause::GuestPause(QmpClient& qmp, std::string name, const PauseState& state)
    : qmp_(qmp), name_(std::move(name)), process_(qmp.peer_pid()), state_(state) {}

GuestPause::GuestPause(QmpClient& qmp, std::string name, SaveGuard* guard)
    : GuestPause(qmp, std::move(name), PauseState{.was_running = QueryStatus(qmp) == "running"}) {
  guard_ = guard;
  Change([](PauseState&) {});
  qmp_.TakeEvents();  // those before do not matter
}

PauseState GuestPause::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

// The guard knows of it when this returns.
template <class Function>
void GuestPause::Change(const Function& change) {
  const std::lock_guard lock(mutex_);
  change(state_);
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
  const bool runs = status == "running";
  Change([runs](PauseState& state) {
    state.was_running = runs;
    state.stopped = runs;  // also where no answer comes
  });
  if (runs) qmp_.Execute("stop");
}

void GuestPause::Look() {
  const std::string status = QueryStatus(qmp_);
  const bool runs = status == "running";
  const PauseState now = state();
  if (IsStoppedByMigration(status) || now.stopped || now.was_running == runs) return;
  Change([this, runs](PauseState& state) {
    if (!found_) state.was_running = runs;
  });
}

void GuestPause::FoundState(const std::optional<std::string>& run_state) {
  Change([this, &run_state](PauseState& state) {
    if (!run_state || state.stopped) return;
    state.was_running = *run_state == "running";
    found_ = true;
  });
}

// Whoever resumes a guest takes it out of this state for good.
void GuestPause::CheckStandsStill() {
  const QmpClient::Uninterrupted uninterrupted(qmp_);
  if (QueryStatus(qmp_) == "postmigrate") return;
  throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", name_), "somebody else resumed it while it was saved",
              "save it again, and see to it that nobody does");
}

void GuestPause::Resume() {
  const PauseState before = state();
  if (!before.was_running || before.resumed) return;
  const Command command(qmp_);
  const std::string status = QueryStatus(qmp_);
  if (before.stopped ? status != "running" : IsStoppedByMigration(status)) qmp_.Execute("cont");
  Change([](PauseState& state) { state.resumed = true; });
}

void GuestPause::Undo(const std::exception& failure) {
  const QmpClient::Uninterrupted uninterrupted(qmp_);
  try {
    if (state().stopped) Resume();
    QueryStatus(qmp_);  // also where nothing is to be undone: a QEMU that has ended explains every other failure
    Resume();
  } catch (const std::exception& undo_failure) {
    if (HasEnded()) {
      const bool is_complete = dynamic_cast<const NameNotDurable*>(&failure) != nullptr;
      throw Error(ErrorKind::kFailed, fmt::format("cannot save {}", name_), "its QEMU ended while it was being saved",
                  fmt::format("{}; QEMU's own log may say why", is_complete ? failure.what() : "no image was written"));
    }
    const PauseState now = state();
    if (!now.was_running || now.resumed) return;
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
    if (after != AfterSave::kResume) RefuseResumed();
    if (after == AfterSave::kQuit) Quit();
    if (after == AfterSave::kPause && QueryStatus(qmp_) == "running") qmp_.Execute("stop");
    if (after == AfterSave::kResume) Resume();
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kFailed, "the image is complete, but QEMU did not do as it was told", error.what(),
                "see to it that this guest does not run on beside a restored one");
  }
}

void GuestPause::RefuseResumed() {
  const PauseState now = state();
  if (!now.stopped || now.resumed || QueryStatus(qmp_) != "running") return;
  throw Error(ErrorKind::kFailed, fmt::format("{} was stopped to be saved", name_), "somebody else has resumed it");
}

std::chrono::duration<double> GuestPause::length() {
  const PauseState now = state();
  if (!now.was_running) return {};
  TakeEvents();
  if (now.resumed && stopped_at_) WaitForResume();
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
