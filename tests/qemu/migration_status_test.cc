#include "qemu/migration_status.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/qemu/running_qemu.h"
#include "tests/qemu/scripted_peer.h"

namespace vmsave {
namespace {

using std::chrono::milliseconds;

// A QEMU that answers to query-migrate with these, one after the other.
class MigrationAnswers {
 public:
  explicit MigrationAnswers(std::vector<std::string> answers)
      : peer_([answers = std::move(answers)](Connection& c) {
          c.Welcome();
          for (const std::string& answer : answers) {
            const QmpClient::Json request = c.Hear();
            if (request.is_discarded()) return;
            EXPECT_EQ(request["execute"], "query-migrate");
            c.Say(Connection::Answer(request, answer));
          }
        }),
        qmp_(peer_.path(), never_, kTestPatience) {}

  QmpClient& qmp() { return qmp_; }

  std::string WaitMessage() {
    try {
      WaitMigrationCompleted(qmp_, "cannot do it", "try again");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

 private:
  Interrupt never_;
  ScriptedPeer peer_;
  QmpClient qmp_;
};

TEST(MigrationStatusTest, TellsWhatQemuTells) {
  MigrationAnswers qemu({R"({"status": "completed", "downtime": 17, "total-time": 4000, "ram": {}})",
                         R"({"status": "failed", "error-desc": "no route"})", "{}"});

  const MigrationStatus completed = QueryMigration(qemu.qmp());
  EXPECT_EQ(completed.status, "completed");
  EXPECT_EQ(completed.error, "");
  EXPECT_EQ(completed.downtime, milliseconds(17));
  EXPECT_EQ(completed.total_time, milliseconds(4000));

  const MigrationStatus failed = QueryMigration(qemu.qmp());
  EXPECT_EQ(failed.status, "failed");
  EXPECT_EQ(failed.error, "no route");
  EXPECT_EQ(failed.downtime, std::nullopt);
  EXPECT_EQ(failed.total_time, std::nullopt);

  EXPECT_EQ(QueryMigration(qemu.qmp()).status, "none");
}

TEST(MigrationStatusTest, RefusesAnAnswerOfAnotherShape) {
  const std::vector<std::string> answers{"7", "[]", "null", R"({"status": 7})",
                                         R"({"status": "failed", "error-desc": {}})"};
  MigrationAnswers qemu(answers);
  for (const std::string& answer : answers) EXPECT_THROW(QueryMigration(qemu.qmp()), Error) << answer;
}

TEST(MigrationStatusTest, TakesATimeThatIsNoneForNotTold) {
  MigrationAnswers qemu({R"({"status": "completed", "downtime": -1, "total-time": 18446744073709551615})"});
  const MigrationStatus migration = QueryMigration(qemu.qmp());
  EXPECT_EQ(migration.downtime, std::nullopt);
  EXPECT_EQ(migration.total_time, std::nullopt);
}

TEST(MigrationStatusTest, IsAtRestWhereNothingIsUnderWay) {
  for (const char* status : {"none", "completed", "failed", "cancelled"}) EXPECT_TRUE(IsMigrationAtRest(status));
  for (const char* status : {"setup", "active", "device", "cancelling"}) EXPECT_FALSE(IsMigrationAtRest(status));
}

TEST(WaitMigrationCompletedTest, WaitsThroughWhatComesBefore) {
  MigrationAnswers qemu({"{}", R"({"status": "setup"})", R"({"status": "active"})", R"({"status": "device"})",
                         R"({"status": "completed"})"});
  EXPECT_EQ(qemu.WaitMessage(), "");
}

TEST(WaitMigrationCompletedTest, TellsWhyItFailed) {
  MigrationAnswers with_reason({R"({"status": "active"})", R"({"status": "failed", "error-desc": "no route"})"});
  EXPECT_EQ(with_reason.WaitMessage(), "cannot do it: no route (try again)");
  MigrationAnswers without({R"({"status": "cancelled"})"});
  EXPECT_EQ(without.WaitMessage(), "cannot do it: QEMU's migration ended as cancelled (try again)");
}

}  // namespace
}  // namespace vmsave
