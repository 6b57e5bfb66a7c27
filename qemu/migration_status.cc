#include "qemu/migration_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <thread>

namespace vmsave {
namespace {

using Json = QmpClient::Json;

constexpr auto kPoll = std::chrono::milliseconds(2);

Error UnexpectedAnswer(const QmpClient& qmp) {
  return Error(ErrorKind::kFailed, fmt::format("cannot ask the guest at {} about its migration", qmp.socket_path()),
               "QEMU's answer is not understood");
}

std::optional<std::uint64_t> Number(const Json& object, const char* name) {
  const auto member = object.find(name);
  if (member == object.end() || !member->is_number_unsigned()) return std::nullopt;
  return member->get<std::uint64_t>();
}

std::optional<std::chrono::milliseconds> Milliseconds(const Json& migration, const char* name) {
  constexpr auto kLongest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const std::optional<std::uint64_t> value = Number(migration, name);
  if (!value || *value > kLongest) return std::nullopt;
  return std::chrono::milliseconds(*value);
}

ByteCount RamBytes(const Json& migration, const char* name) {
  const auto ram = migration.find("ram");
  if (ram == migration.end() || !ram->is_object()) return ByteCount{0};
  return ByteCount{Number(*ram, name).value_or(0)};
}

// Nothing where it is there and is no text.
std::optional<std::string> Text(const Json& migration, const char* name, const char* if_absent) {
  const auto member = migration.find(name);
  if (member == migration.end()) return if_absent;
  if (!member->is_string()) return std::nullopt;
  return member->get<std::string>();
}

// Until the very end of its cleaning up, the migration is among the instances that could be yanked (QEMU >= 6.0,
// migration/migration.c, migrate_fd_cleanup).
bool IsCleanedUp(QmpClient& qmp) {
  constexpr auto kUnseenCleaning = std::chrono::milliseconds(100);
  try {
    const Json instances = qmp.Execute("query-yank");
    return std::ranges::none_of(instances,
                                [](const Json& instance) { return StringMember(instance, "type") == "migration"; });
  } catch (const QmpError&) {
    std::this_thread::sleep_for(kUnseenCleaning);
    return true;
  }
}

}  // namespace

MigrationStatus QueryMigration(QmpClient& qmp) {
  const Json migration = qmp.Execute("query-migrate");
  if (!migration.is_object()) throw UnexpectedAnswer(qmp);
  std::optional<std::string> status = Text(migration, "status", "none");
  std::optional<std::string> error = Text(migration, "error-desc", "");
  if (!status || !error) throw UnexpectedAnswer(qmp);
  return {*std::move(status),
          *std::move(error),
          Milliseconds(migration, "downtime"),
          Milliseconds(migration, "total-time"),
          RamBytes(migration, "total"),
          RamBytes(migration, "remaining")};
}

std::string QueryMigrationStatus(QmpClient& qmp) {
  return QueryMigration(qmp).status;
}

bool IsMigrationAtRest(const std::string& migration_status) {
  constexpr std::array<std::string_view, 4> kAtRest{"none", "completed", "failed", "cancelled"};
  return std::ranges::find(kAtRest, migration_status) != kAtRest.end();
}

void WaitMigrationCompleted(QmpClient& qmp, std::string_view what_failed, std::string_view advice) {
  while (true) {
    const MigrationStatus migration = QueryMigration(qmp);
    if (migration.status == "completed") return;
    // An incoming migration is "none" until QEMU has taken up the connection.
    if (migration.status != "none" && IsMigrationAtRest(migration.status)) {
      throw Error(ErrorKind::kFailed, what_failed,
                  migration.error.empty() ? "QEMU's migration ended as " + migration.status : Excerpt(migration.error),
                  advice);
    }
    std::this_thread::sleep_for(kPoll);
  }
}

bool IsMigrationGone(QmpClient& qmp) {
  return IsMigrationAtRest(QueryMigrationStatus(qmp)) && IsCleanedUp(qmp);
}

}  // namespace vmsave
