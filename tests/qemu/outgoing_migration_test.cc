#include "qemu/outgoing_migration.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <map>
#include <mutex>

#include "tests/qemu/running_qemu.h"
#include "tests/qemu/scripted_peer.h"

namespace vmsave {
namespace {

const std::string kNone = "{}";
const std::string kMigrationListed = R"([{"type": "chardev", "id": "compat_monitor0"}, {"type": "migration"}])";
const std::string kNothingListed = R"([{"type": "chardev", "id": "compat_monitor0"}])";

// A QEMU that answers each command in the way scripted for it: one answer after the other, the last for ever.
class ScriptedQemu {
 public:
  using Answers = std::map<std::string, std::vector<std::string>>;

  explicit ScriptedQemu(Answers answers)
      : answers_(std::move(answers)), peer_([this](Connection& c) { Serve(c); }), qmp_(peer_.path(), never_) {}

  QmpClient& qmp() { return qmp_; }

  // What it was told so far.
  std::vector<std::string> commands() {
    const std::lock_guard lock(mutex_);
    return commands_;
  }

 private:
  void Serve(Connection& c) {
    c.Welcome();
    for (QmpClient::Json request = c.Hear(); !request.is_discarded(); request = c.Hear()) {
      const std::string command = request["execute"];
      {
        const std::lock_guard lock(mutex_);
        commands_.push_back(command);
      }
      std::vector<std::string>& answers = answers_[command];
      const std::string answer = answers.empty() ? kNone : answers.front();
      if (answers.size() > 1) answers.erase(answers.begin());
      c.Say(answer == "not found"
                ? fmt::format(R"({{"error": {{"class": "CommandNotFound", "desc": "not found"}}, "id": {}}})"
                              "\r\n",
                              request["id"].get<std::uint64_t>())
                : Connection::Answer(request, answer));
    }
  }

  Interrupt never_;
  std::mutex mutex_;
  Answers answers_;
  std::vector<std::string> commands_;
  ScriptedPeer peer_;
  QmpClient qmp_;
};

ScriptedQemu::Answers WithMultifd(ScriptedQemu::Answers answers) {
  answers["query-migrate-capabilities"] = {R"([{"capability": "multifd", "state": false}])"};
  return answers;
}

using Commands = std::vector<std::string>;

// QEMU 7.2 aborted when its capability multifd was turned off between the end of a migration and its cleaning up.
TEST(OutgoingMigrationTest, PutsSettingsBackOnlyOnceQemuHasCleanedUp) {
  ScriptedQemu qemu(WithMultifd({{"query-migrate", {R"({"status": "cancelling"})", R"({"status": "failed"})"}},
                                 {"query-yank", {kMigrationListed, kMigrationListed, kNothingListed}}}));
  std::size_t before = 0;
  {
    OutgoingMigration migration(qemu.qmp(), {"multifd"}, {});
    migration.Start("unix:/nowhere");
    before = qemu.commands().size();
  }

  const Commands all = qemu.commands();
  EXPECT_EQ(Commands(all.begin() + static_cast<std::ptrdiff_t>(before), all.end()),
            (Commands{"migrate_cancel", "query-migrate", "query-migrate", "query-yank", "query-migrate", "query-yank",
                      "query-migrate", "query-yank", "migrate-set-capabilities"}));
}

TEST(OutgoingMigrationTest, PutsSettingsBackInAQemuThatDoesNotTellWhatItStillHas) {
  ScriptedQemu qemu(WithMultifd({{"query-migrate", {R"({"status": "failed"})"}}, {"query-yank", {"not found"}}}));
  {
    OutgoingMigration migration(qemu.qmp(), {"multifd"}, {});
    migration.Start("unix:/nowhere");
  }

  EXPECT_EQ(qemu.commands().back(), "migrate-set-capabilities");
}

TEST(OutgoingMigrationTest, ExplainsABrokenStreamByWhatQemuSays) {
  ScriptedQemu qemu(WithMultifd(
      {{"query-migrate", {R"({"status": "active"})", R"({"status": "failed", "error-desc": "disk on fire"})"}},
       {"query-yank", {kNothingListed}}}));
  OutgoingMigration migration(qemu.qmp(), {"multifd"}, {});
  migration.Start("unix:/nowhere");
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  const FileDescriptor socket(ends[0], "channel 1");
  ::close(ends[1]);

  try {
    migration.Receive(std::array{&socket}, [] { throw Error(ErrorKind::kDamaged, "channel 1", "it ends early"); });
    FAIL() << "it did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFailed);
    EXPECT_STREQ(error.what(),
                 "cannot receive the guest's migration: channel 1: it ends early (QEMU says: disk on fire)");
  }
}

}  // namespace
}  // namespace vmsave
