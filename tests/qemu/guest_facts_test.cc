#include "qemu/guest_facts.h"

#include <gtest/gtest.h>

#include "tests/qemu/scripted_peer.h"

namespace vmsave {
namespace {

using Answers = std::vector<std::string>;

const Answers kAnswers{R"({"name": "demo"})",
                       R"({"UUID": "12345678-0000-0000-0000-000000000000"})",
                       R"("pc-i440fx-10.0-machine")",
                       R"({"base-memory": 134217728})",
                       R"([{"cpu-index": 0}, {"cpu-index": 1}])",
                       R"({"enabled": false, "present": true})",
                       R"({"status": "paused", "running": false})"};

// What a guest is that answers so, one after the other.
GuestFacts Ask(const Answers& answers) {
  ScriptedPeer peer([&](Connection& connection) {
    connection.Welcome();
    for (const std::string& answer : answers) connection.Say(Connection::Answer(connection.Hear(), answer));
  });
  const Interrupt interrupt;
  QmpClient qmp(peer.path(), interrupt, kTestPatience);
  return QueryGuest(qmp);
}

TEST(GuestFactsTest, AreWhatQemuTells) {
  const GuestFacts guest = Ask(kAnswers);

  EXPECT_EQ(guest.name, "demo");
  EXPECT_EQ(guest.uuid, "12345678-0000-0000-0000-000000000000");
  EXPECT_EQ(guest.machine, "pc-i440fx-10.0");
  EXPECT_EQ(guest.memory, ByteCount{134217728});
  EXPECT_EQ(guest.vcpus, 2U);
  EXPECT_FALSE(guest.kvm);
  EXPECT_EQ(guest.status, "paused");
}

TEST(GuestFactsTest, AnswersOfAnotherShapeAreRefused) {
  for (const std::string wrong : {R"([])", R"({"name": 1, "UUID": 2, "base-memory": -1, "enabled": 3, "status": []})",
                                  R"({"name": [], "base-memory": 1e300})"}) {
    for (const std::size_t place : {0U, 1U, 2U, 3U, 5U, 6U}) {
      SCOPED_TRACE(place);
      Answers answers(kAnswers.begin(), kAnswers.begin() + static_cast<std::ptrdiff_t>(place));
      answers.push_back(wrong);
      try {
        Ask(answers);
        ADD_FAILURE() << "taken: " << wrong;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("is not understood"), std::string::npos) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace vmsave
