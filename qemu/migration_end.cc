#include "qemu/migration_end.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>
#include <vector>

#include "format/qemu_stream.h"
#include "qemu/migration_settings.h"
#include "qemu/migration_status.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kNextToNothing = 4096;  // bytes/s
constexpr auto kBandwidthWindow = std::chrono::milliseconds(100);
constexpr auto kPoll = std::chrono::milliseconds(2);
constexpr auto kEndTimeout = std::chrono::seconds(30);
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
constexpr int kPieceTimeoutMs = 50;

bool IsBefore8_1(const QemuVersion& version) {
  return version.major < 8 || (version.major == 8 && version.minor < 1);
}

// What makes an end easier, but need not be had.
void TryBandwidth(QmpClient& qmp, std::int64_t bandwidth) {
  try {
    qmp.Execute("migrate-set-parameters", {{"max-bandwidth", bandwidth}});
  } catch (const QmpError&) {
    return;
  }
}

bool IsUnderWay(QmpClient& qmp) {
  return !IsMigrationAtRest(QueryMigrationStatus(qmp));
}

bool MayEnd(QmpClient& qmp, const MigrationKind& kind) {
  if (!IsUnderWay(qmp)) return true;
  return !kind.must_run_to_its_end && qmp.WaitEvent("RESUME", kPoll);
}

// With next to nothing to send QEMU's channels are at rest but for an instant of each tenth of a second, which is what
// it counts its bandwidth by.
void SlowDown(QmpClient& qmp) {
  TryBandwidth(qmp, kNextToNothing);
  std::this_thread::sleep_for(kBandwidthWindow * 3 / 2);
}

}  // namespace

MigrationKind KindOfMigration(const std::set<std::string>& capabilities, const QemuVersion& version) {
  MigrationKind kind;
  kind.is_snapshot = capabilities.contains("background-snapshot");
  kind.must_run_to_its_end = kind.is_snapshot && IsBefore8_1(version);
  kind.crashes_when_cancelled_in_full_flight = capabilities.contains(std::string(kMappedRamCapability));
  return kind;
}

void ThrowAway(MigrationSockets sockets, const std::stop_token& stop) {
  constexpr int kClosed = -1;  // poll(2) passes over it
  std::vector<pollfd> pollers;
  for (const FileDescriptor* socket : sockets) pollers.push_back({socket->number(), POLLIN, 0});
  std::vector<FileDescriptor> accepted;
  std::vector<std::byte> piece(kPieceBytes);
  while (!stop.stop_requested()) {
    if (::poll(pollers.data(), pollers.size(), kPieceTimeoutMs) <= 0) continue;
    for (pollfd& poller : pollers) {
      if (poller.revents == 0) continue;
      const ssize_t got = ::recv(poller.fd, piece.data(), piece.size(), MSG_DONTWAIT);
      if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) continue;
      const int connection = got < 0 ? ::accept4(poller.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK) : kClosed;
      if (connection >= 0) accepted.emplace_back(connection, "a migration connection");
      if (connection < 0) poller.fd = kClosed;
    }
    for (std::size_t known = pollers.size() - sockets.size(); known < accepted.size(); ++known) {
      pollers.push_back({accepted[known].number(), POLLIN, 0});
    }
  }
}

SocketDrain::SocketDrain(MigrationSockets sockets) noexcept {
  try {
    thread_ = std::jthread([sockets](const std::stop_token& stop) { ThrowAway(sockets, stop); });
  } catch (const std::exception&) {
    for (const FileDescriptor* socket : sockets) ::shutdown(socket->number(), SHUT_RDWR);
  }
}

void GoOnUntilMigrationMayEnd(QmpClient& qmp, const MigrationKind& kind) {
  if (!kind.is_snapshot) return;
  TryBandwidth(qmp, kUnlimitedBandwidth);
  while (!MayEnd(qmp, kind)) std::this_thread::sleep_for(kPoll);
}

void CancelMigration(QmpClient& qmp, const MigrationKind& kind) {
  if (kind.crashes_when_cancelled_in_full_flight) SlowDown(qmp);
  qmp.Execute("migrate_cancel");
  AwaitMigrationGone(qmp);
}

void AwaitMigrationGone(QmpClient& qmp) {
  const auto deadline = Clock::now() + kEndTimeout;
  while (!IsMigrationGone(qmp) && Clock::now() <= deadline) std::this_thread::sleep_for(kPoll);
}

}  // namespace vmsave
