// Time-outs of a QMP client whose other end does not fall silent.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>

#include "qemu/qmp_client.h"
#include "tests/qemu/scripted_peer.h"

namespace vmsave {
namespace {

using std::chrono::milliseconds;

// More events than can be read in the time that a test gives; then what the client waits for.
void Flood(const Connection& connection, const std::string& last) {
  std::string events;
  for (int i = 0; i < 1000; ++i) events += "{\"event\": \"BALLOON_CHANGE\"}\n";
  for (int i = 0; i < 300; ++i) connection.Say(events);
  connection.Say(last);
}

constexpr milliseconds kLessThanAFlood(10);

class QmpTimeOutTest : public testing::Test {
 protected:
  Interrupt never_;
};

TEST_F(QmpTimeOutTest, FloodOfEventsDoesNotPutOffTheTimeOutOfACommand) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    Flood(c, Connection::Answer(request));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  client.SetTimeout(kLessThanAFlood);
  EXPECT_THROW(client.Execute("query-status"), Error);
}

TEST_F(QmpTimeOutTest, FloodOfEventsDoesNotPutOffTheTimeOutOfAWait) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    Flood(c, "{\"event\": \"STOP\"}\n");
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_FALSE(client.WaitEvent("STOP", kLessThanAFlood));
  EXPECT_FALSE(client.WaitClosed(kLessThanAFlood));
}

TEST_F(QmpTimeOutTest, FloodOfAnswersDoesNotPutOffTheTimeOutOfTheGreeting) {
  const ScriptedPeer peer([](Connection& c) {
    std::string answers;
    for (int i = 0; i < 1000; ++i) answers += "{\"return\": {}, \"id\": 99}\n";
    for (int i = 0; i < 300; ++i) c.Say(answers);
    c.Say(kGreeting);
    const auto request = c.Hear();
    if (!request.is_discarded()) c.Say(Connection::Answer(request));
  });
  EXPECT_THROW(QmpClient(peer.path(), never_, kLessThanAFlood, milliseconds(0)), Error);
}

// Of a client that was stopped, say: it was in time.
TEST_F(QmpTimeOutTest, LooksAtAllThatHasComeHoweverLateItIs) {
  std::promise<void> said;
  const ScriptedPeer peer([&said](Connection& c) {
    c.Welcome();
    c.Say("{\"event\": \"OTHER\"}\n{\"event\": \"OTHER\"}\n{\"event\": \"STOP\"}\n");
    said.set_value();
    c.WaitUntilGone();
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  said.get_future().wait();
  EXPECT_TRUE(client.WaitEvent("STOP", milliseconds(0)));
}

TEST_F(QmpTimeOutTest, TakesNoMoreEventsAtOnceThanItKeeps) {
  std::promise<void> said;
  const ScriptedPeer peer([&said](Connection& c) {
    c.Welcome();
    std::string events;
    for (int i = 0; i < 3000; ++i) events += fmt::format("{{\"event\": \"E{}\"}}\n", i);
    c.Say(events);
    said.set_value();
    c.WaitUntilGone();
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  said.get_future().wait();
  for (const std::size_t count : {1024U, 1024U, 952U}) EXPECT_EQ(client.TakeEvents().size(), count);
}

}  // namespace
}  // namespace vmsave
