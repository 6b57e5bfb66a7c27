#include "qemu/outgoing_migration.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "format/qemu_stream.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kUnlimitedBandwidth = std::int64_t{1} << 40;  // bytes/s
constexpr std::int64_t kNextToNothing = 4096;
constexpr auto kBandwidthWindow = std::chrono::milliseconds(100);
constexpr auto kFirstPoll = std::chrono::milliseconds(2);
constexpr auto kLastPoll = std::chrono::milliseconds(50);
constexpr auto kReasonTimeout = std::chrono::seconds(5);
constexpr auto kEndTimeout = std::chrono::seconds(30);
constexpr auto kOnceItHangs = std::chrono::seconds(1);
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
constexpr int kPieceTimeoutMs = 50;

bool IsSnapshot(const std::set<std::string>& capabilities) {
  return capabilities.contains("background-snapshot");
}

bool IsBefore8_1(const QemuVersion& version) {
  return version.major < 8 || (version.major == 8 && version.minor < 1);
}

// Takes all that comes, until it is stopped.
void ThrowAway(OutgoingMigration::Sockets sockets, const std::stop_token& stop) {
  constexpr int kClosed = -1;  // poll(2) passes over it
  std::vector<pollfd> pollers;
  for (const FileDescriptor* socket : sockets) pollers.push_back({socket->number(), POLLIN, 0});
  std::vector<std::byte> piece(kPieceBytes);
  while (!stop.stop_requested()) {
    if (::poll(pollers.data(), pollers.size(), kPieceTimeoutMs) <= 0) continue;
    for (pollfd& poller : pollers) {
      if (poller.revents == 0) continue;
      const ssize_t got = ::recv(poller.fd, piece.data(), piece.size(), MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) poller.fd = kClosed;
    }
  }
}

// What makes an end easier, but need not be had.
void Try(const std::function<void()>& preparation) {
  try {
    preparation();
  } catch (const QmpError&) {
    return;
  }
}

std::set<std::string> WithAutoConverge(std::set<std::string> capabilities, const MigrationLimits& limits) {
  if (limits.auto_converge) capabilities.insert("auto-converge");
  return capabilities;
}

}  // namespace

OutgoingMigration::OutgoingMigration(QmpClient& qmp, const std::set<std::string>& capabilities,
                                     const MigrationLimits& limits, std::function<void()> stop_guest)
    : qmp_(qmp),
      settings_(qmp, WithAutoConverge(capabilities, limits), OnFailure::kPutBack),
      timeout_(limits.timeout),
      stop_guest_(std::move(stop_guest)),
      crashes_when_cancelled_in_full_flight_(capabilities.contains(std::string(kMappedRamCapability))),
      is_snapshot_(IsSnapshot(capabilities)),
      must_run_to_its_end_(is_snapshot_ && IsBefore8_1(qmp.version())) {
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
  try {
    qmp_.Execute("migrate", {{"uri", uri}});
  } catch (const QmpError&) {
    started_ = false;  // and what QEMU may be migrating then is somebody else's
    throw;
  }
  if (timeout_) deadline_ = Clock::now() + *timeout_;
}

MigrationStatus OutgoingMigration::Look() {
  MigrationStatus migration = QueryMigration(qmp_);
  completed_ = migration.status == "completed";
  if (!completed_ && IsMigrationAtRest(migration.status)) {
    throw Error(ErrorKind::kFailed, what_failed_,
                migration.error.empty() ? "its migration ended as " + migration.status : Printable(migration.error));
  }
  return migration;
}

bool OutgoingMigration::MayEnd() {
  if (!IsUnderWay()) return true;
  return !must_run_to_its_end_ && qmp_.WaitEvent("RESUME", kFirstPoll);
}

void OutgoingMigration::Receive(Sockets sockets, const std::function<void()>& receive) {
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

// Returns why, as far as QEMU knows.
std::string OutgoingMigration::GiveUp(Sockets sockets, bool is_broken) noexcept {
  std::string reason;
  if (!started_) return reason;
  try {
    const bool has_reason =
        is_broken && std::ranges::any_of(sockets, IsClosedByPeer,
                                         [](const FileDescriptor* socket) -> const FileDescriptor& { return *socket; });
    // On another thread: QEMU may wait for room in a socket, and answers no command until somebody reads.
    const std::jthread drain([sockets](const std::stop_token& stop) { ThrowAway(sockets, stop); });
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    if (has_reason) reason = AwaitReason();
    if (is_snapshot_) GoOnUntilItMayEnd();
    End();
  } catch (const std::exception&) {
    return reason;  // QEMU is gone or hangs, or no thread could be had; the destructor tries what is left
  }
  return reason;
}

std::string OutgoingMigration::AwaitReason() {
  MigrationStatus migration = QueryMigration(qmp_);
  for (const auto deadline = Clock::now() + kReasonTimeout;
       !IsMigrationAtRest(migration.status) && Clock::now() < deadline; migration = QueryMigration(qmp_)) {
    std::this_thread::sleep_for(kFirstPoll);
  }
  return migration.error.empty() ? "" : "QEMU says: " + Printable(migration.error);
}

void OutgoingMigration::GoOnUntilItMayEnd() {
  Try([this] { settings_.SetParameter("max-bandwidth", kUnlimitedBandwidth); });
  while (!MayEnd()) std::this_thread::sleep_for(kFirstPoll);
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
    StopGuestWhenTimeIsUp();
    std::this_thread::sleep_for(poll);
    poll = std::min(poll * 2, kLastPoll);
  }
  return false;
}

void OutgoingMigration::StopGuestWhenTimeIsUp() {
  if (!deadline_ || Clock::now() < *deadline_) return;
  deadline_.reset();
  if (stop_guest_) stop_guest_();
}

// QEMU 10.0 frees the bitmaps of fixed offsets before it stops the channels that set bits in them (migration/ram.c:
// ram_save_cleanup, migration/multifd.c). With next to nothing to send they are at rest but for an instant of each
// tenth of a second, which is what QEMU counts its bandwidth by.
void OutgoingMigration::SlowDown() {
  settings_.SetParameter("max-bandwidth", kNextToNothing);
  std::this_thread::sleep_for(kBandwidthWindow * 3 / 2);
}

// QEMU tells "completed" and "failed" before it cleans up. If its settings changed under that, it would clean up what
// it does not have and leave what it has: QEMU 7.2 aborts over the channels of a multifd migration, the guest with it.
void OutgoingMigration::End() noexcept {
  started_ = false;
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    if (!completed_ && crashes_when_cancelled_in_full_flight_) Try([this] { SlowDown(); });
    if (!completed_) qmp_.Execute("migrate_cancel");
    const auto deadline = Clock::now() + kEndTimeout;
    while (!IsMigrationGone(qmp_)) {
      if (Clock::now() > deadline) return;
      std::this_thread::sleep_for(kFirstPoll);
    }
  } catch (const QmpError&) {
    return;  // it answers, though not well
  } catch (const std::exception&) {
    // Whoever undoes the rest will find out what became of QEMU, and need not wait so long once more.
    qmp_.SetTimeout(kOnceItHangs);
  }
}

}  // namespace vmsave
