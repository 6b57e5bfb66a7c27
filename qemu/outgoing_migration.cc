#include "qemu/outgoing_migration.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "qemu/save_guard.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kFirstPoll = std::chrono::milliseconds(2);
constexpr auto kLastPoll = std::chrono::milliseconds(50);
constexpr auto kReasonTimeout = std::chrono::seconds(5);
constexpr auto kOnceItHangs = std::chrono::seconds(1);

class StopWhenLeft {
 public:
  explicit StopWhenLeft(std::stop_source& source) : source_(source) {}
  StopWhenLeft(const StopWhenLeft&) = delete;
  StopWhenLeft& operator=(const StopWhenLeft&) = delete;
  ~StopWhenLeft() { source_.request_stop(); }

 private:
  std::stop_source& source_;
};

std::set<std::string> WithAutoConverge(std::set<std::string> capabilities, const MigrationLimits& limits) {
  if (limits.auto_converge) capabilities.insert("auto-converge");
  return capabilities;
}

}  // namespace

OutgoingMigration::OutgoingMigration(QmpClient& qmp, const std::set<std::string>& capabilities,
                                     const MigrationLimits& limits, FollowedGuest guest, SaveGuard* guard)
    : qmp_(qmp),
      guard_(guard),
      settings_(qmp, WithAutoConverge(capabilities, limits), OnFailure::kPutBack, guard),
      kind_(KindOfMigration(capabilities, qmp.version())),
      timeout_(limits.timeout),
      guest_(std::move(guest)) {
  settings_.PutBackInTheEnd("max-bandwidth");  // the end of a migration may need another
  settings_.SetParameter("max-bandwidth",
                         limits.bandwidth ? static_cast<std::int64_t>(limits.bandwidth->value()) : kUnlimitedBandwidth);
  if (limits.downtime) settings_.SetParameter("downtime-limit", limits.downtime->count());
}

OutgoingMigration::~OutgoingMigration() {
  if (started_) End();
}

void OutgoingMigration::Start(const std::string& uri, std::string what_failed) {
  what_failed_ = std::move(what_failed);
  const QmpClient::Uninterrupted uninterrupted(qmp_);
  started_ = true;  // also where no answer comes: QEMU may have begun
  if (guard_ != nullptr) guard_->NoteMigration(kind_);
  try {
    qmp_.Execute("migrate", {{"uri", uri}});
  } catch (const QmpError&) {
    started_ = false;  // and what QEMU may be migrating then is somebody else's
    if (guard_ != nullptr) guard_->NoteMigration(std::nullopt);
    throw;
  }
  if (timeout_) deadline_ = Clock::now() + *timeout_;
}

MigrationStatus OutgoingMigration::Look() {
  MigrationStatus migration = QueryMigration(qmp_);
  completed_ = migration.status == "completed";
  if (!completed_ && IsMigrationAtRest(migration.status)) {
    throw Error(ErrorKind::kFailed, what_failed_,
                migration.error.empty() ? "its migration ended as " + migration.status : Excerpt(migration.error));
  }
  return migration;
}

void OutgoingMigration::Receive(MigrationSockets sockets, const std::function<void()>& receive) {
  try {
    receive();
  } catch (const Error& error) {
    const bool is_broken = error.kind() == ErrorKind::kDamaged;
    const std::string reason = GiveUp(sockets, is_broken);
    if (is_broken) throw Error(ErrorKind::kFailed, "cannot receive the guest's migration", error.what(), reason);
    throw;
  } catch (...) {
    GiveUp(sockets, false);
    throw;
  }
}

void OutgoingMigration::ReceiveAll(MigrationSockets sockets, const std::function<void()>& start,
                                   const std::function<void(unsigned, const ChannelContext&)>& receive,
                                   Progress& progress, const Interrupt& interrupt) {
  std::stop_source following_ended;
  std::atomic<bool> failed = false;
  const auto follow = [&](const ChannelContext& context) {
    const StopWhenLeft tell(following_ended);
    start();
    Follow([&] { return !failed && context.GoOn(); }, progress);
  };
  const auto receive_all = [&](const ChannelContext& context) {
    try {
      RunChannels(static_cast<unsigned>(sockets.size()), context,
                  [&](const ChannelContext& one) { receive(one.channel(), one); });
    } catch (...) {
      failed = true;
      ThrowAway(sockets, following_ended.get_token());
      throw;
    }
  };
  constexpr unsigned kFollower = 0;  // the first to start: whoever fails waits for its end
  Receive(sockets, [&] {
    RunChannels(2, interrupt, [&](const ChannelContext& context) {
      context.channel() == kFollower ? follow(context) : receive_all(context);
    });
  });
}

// Returns why, as far as QEMU knows.
std::string OutgoingMigration::GiveUp(MigrationSockets sockets, bool is_broken) noexcept {
  std::string reason;
  if (!started_) return reason;
  try {
    const bool has_reason =
        is_broken && std::ranges::any_of(sockets, IsClosedByPeer,
                                         [](const FileDescriptor* socket) -> const FileDescriptor& { return *socket; });
    const SocketDrain drain(sockets);
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    if (has_reason) reason = AwaitReason();
    GoOnUntilMigrationMayEnd(qmp_, kind_);
    End();
  } catch (const std::exception&) {
    return reason;  // QEMU is gone or hangs; the destructor tries what is left
  }
  return reason;
}

std::string OutgoingMigration::AwaitReason() {
  MigrationStatus migration = QueryMigration(qmp_);
  for (const auto deadline = Clock::now() + kReasonTimeout;
       !IsMigrationAtRest(migration.status) && Clock::now() < deadline; migration = QueryMigration(qmp_)) {
    std::this_thread::sleep_for(kFirstPoll);
  }
  return migration.error.empty() ? "" : "QEMU says: " + Excerpt(migration.error);
}

void OutgoingMigration::Check() {
  Look();
}

bool OutgoingMigration::Follow(const std::function<bool()>& go_on, Progress& progress) {
  auto poll = kFirstPoll;
  while (go_on()) {
    const MigrationStatus migration = Look();
    progress.Set(migration.ram - std::min(migration.ram, migration.ram_left), migration.ram);
    if (completed_) return true;
    if (guest_.look) guest_.look();
    StopGuestWhenTimeIsUp();
    std::this_thread::sleep_for(poll);
    poll = std::min(poll * 2, kLastPoll);
  }
  return false;
}

void OutgoingMigration::StopGuestWhenTimeIsUp() {
  if (!deadline_ || Clock::now() < *deadline_) return;
  deadline_.reset();
  if (guest_.stop) guest_.stop();
}

void OutgoingMigration::End() noexcept {
  started_ = false;
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    if (completed_) {
      AwaitMigrationGone(qmp_);
    } else {
      CancelMigration(qmp_, kind_);
    }
    if (guard_ != nullptr) guard_->NoteMigration(std::nullopt);
  } catch (const QmpError&) {
    if (guard_ != nullptr) guard_->LetSocketsGo();
    return;  // it answers, though not well
  } catch (const std::exception&) {
    if (guard_ != nullptr) guard_->LetSocketsGo();  // what frees a QEMU that waits for room is that they are closed
    // Whoever undoes the rest will find out what became of QEMU, and need not wait so long once more.
    qmp_.SetTimeout(kOnceItHangs);
  }
}

}  // namespace vmsave
