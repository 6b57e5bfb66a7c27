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

// What `ask` makes of answers that come one after the other.
template <class Ask>
auto Asked(const Answers& answers, const Ask& ask) {
  ScriptedPeer peer([&](Connection& connection) {
    connection.Welcome();
    for (const std::string& answer : answers) connection.Say(Connection::Answer(connection.Hear(), answer));
  });
  const Interrupt interrupt;
  QmpClient qmp(peer.path(), interrupt, kTestPatience);
  return ask(qmp);
}

GuestFacts Ask(const Answers& answers) {
  return Asked(answers, QueryGuest);
}

ByteCount MostRamOf(ByteCount memory, const std::string& backends) {
  GuestFacts guest;
  guest.memory = memory;
  return Asked({backends}, [&guest](QmpClient& qmp) { return QueryMostRam(qmp, guest); });
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

TEST(GuestFactsTest, ItsRamCanBeThatOfAllBackendsAndSomeMore) {
  const ByteCount memory{128 << 20};
  const ByteCount without = MostRamOf(memory, "[]");
  EXPECT_GT(without, memory);
  EXPECT_LT(without, memory + ByteCount{std::uint64_t{1} << 40});
  EXPECT_EQ(MostRamOf(memory, R"([{"id": "a", "size": 134217728}, {"size": 4096}])"),
            without + ByteCount{134217728 + 4096});
}

TEST(GuestFactsTest, BackendsOfAnotherShapeAreRefused) {
  for (const std::string wrong : {R"([{"id": "a"}])", R"([{"size": -1}])", R"([{"size": "1"}])", "[1]",
                                  R"([{"size": 18446744073709551615}, {"size": 18446744073709551615}])"}) {
    EXPECT_THROW(MostRamOf(ByteCount{4096}, wrong), Error) << wrong;
  }
}

}  // namespace
}  // namespace vmsave
