#include "qemu/qmp_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <thread>

#include "tests/qemu/running_qemu.h"
#include "tests/qemu/scripted_peer.h"

namespace vmsave {
namespace {

using std::chrono::milliseconds;

// The message of the Error that `action` throws, or "" if it throws none.
std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class QmpClientTest : public testing::Test {
 protected:
  std::string ConnectMessage(const std::string& path, milliseconds timeout = kTestPatience,
                             milliseconds reconnect_timeout = milliseconds(0)) {
    return MessageOf([&] { const QmpClient client(path, never_, timeout, reconnect_timeout); });
  }

  Interrupt never_;
  ScratchDirectory directory_;
};

#define EXPECT_TELLS(message, part) EXPECT_NE((message).find(part), std::string::npos) << (message)

TEST_F(QmpClientTest, TellsThatThereIsNoSuchSocket) {
  EXPECT_TELLS(ConnectMessage(directory_.Path("none")), "there is no such socket");
}

TEST_F(QmpClientTest, TellsThatAFileIsNotASocket) {
  std::ofstream(directory_.Path("file")) << "x";
  EXPECT_TELLS(ConnectMessage(directory_.Path("file")), "is not a socket");
}

TEST_F(QmpClientTest, TellsThatNobodyListens) {
  Listen(directory_.Path("left-over")).Close();
  EXPECT_TELLS(ConnectMessage(directory_.Path("left-over")), "has the guest ended?");
}

TEST_F(QmpClientTest, TellsThatAnotherClientMayHoldTheSocket) {
  const FileDescriptor busy = Listen(directory_.Path("busy"));
  const std::string message = ConnectMessage(directory_.Path("busy"), milliseconds(50));
  EXPECT_TELLS(message, "another client holds the QMP socket");
  EXPECT_TELLS(message, "a second -qmp");
}

TEST_F(QmpClientTest, DoesNotHangWhereTheQueueOfClientsIsFull) {
  const FileDescriptor busy = Listen(directory_.Path("busy"), 0);
  std::string message;
  for (int i = 0; i < 3; ++i) message = ConnectMessage(directory_.Path("busy"), milliseconds(50));
  EXPECT_TELLS(message, "other clients hold the QMP socket");
}

TEST_F(QmpClientTest, TellsThatAMonitorForPeopleIsNotQmp) {
  const ScriptedPeer peer(
      [](Connection& c) { c.Say("QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) "); });
  EXPECT_TELLS(ConnectMessage(peer.path()), "it is not a QMP socket");
}

TEST_F(QmpClientTest, TellsThatJsonOfAnotherProtocolIsNotQmp) {
  for (const char* greeting : {"{}\n", "[]\n", "7\n",
                               R"({"QMP": []})"
                               "\n",
                               R"({"QMP": {"version": {"qemu": {"major": -1, "minor": 0, "micro": 0}}}})"
                               "\n"}) {
    const ScriptedPeer peer([greeting](Connection& c) { c.Say(greeting); });
    EXPECT_TELLS(ConnectMessage(peer.path()), "it is not a QMP socket");
  }
}

TEST_F(QmpClientTest, TellsThatHalfAGreetingIsNone) {
  const ScriptedPeer peer([](Connection& c) {
    c.Say("login: ");
    c.WaitUntilGone();
  });
  EXPECT_TELLS(ConnectMessage(peer.path(), milliseconds(300)), "it is not a QMP socket");
}

TEST_F(QmpClientTest, TellsThatQemuClosedTheConnectionInsteadOfGreeting) {
  const ScriptedPeer peer([](Connection&) {});
  EXPECT_TELLS(ConnectMessage(peer.path()), "QEMU closed the connection");
}

// QEMU does that to the client that follows one which it is still taking leave of.
TEST_F(QmpClientTest, ConnectsAnewWhereQemuClosesTheConnectionBeforeItIsUsable) {
  const ScriptedPeer::Script close_at_once = [](Connection&) {};
  const ScriptedPeer::Script close_after_greeting = [](Connection& c) { c.Say(kGreeting); };
  const ScriptedPeer::Script serve = [](Connection& c) {
    c.Welcome();
    c.Say(Connection::Answer(c.Hear(), "5"));
  };
  const ScriptedPeer peer({close_at_once, close_at_once, close_after_greeting, serve});
  QmpClient client(peer.path(), never_, kTestPatience, kTestPatience);
  EXPECT_EQ(client.Execute("anything"), 5);
}

TEST_F(QmpClientTest, GivesUpOnAQemuThatGoesOnClosingTheConnection) {
  const FileDescriptor listener = Listen(directory_.Path("s"));
  std::thread closer([&listener] {
    while (FileDescriptor(::accept(listener.number(), nullptr, nullptr), "connection").valid()) {
    }
  });
  EXPECT_TELLS(ConnectMessage(directory_.Path("s"), kTestPatience, milliseconds(100)), "QEMU closed the connection");
  ::shutdown(listener.number(), SHUT_RDWR);
  closer.join();
}

TEST_F(QmpClientTest, ReadsTheVersionFromTheGreeting) {
  const ScriptedPeer peer([](Connection& c) { c.Welcome(); });
  const QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_EQ(client.version().major, 7);
  EXPECT_EQ(client.version().minor, 2);
  EXPECT_EQ(client.version().micro, 22);
  EXPECT_EQ(client.peer_pid(), ::getpid());
}

TEST_F(QmpClientTest, ReachesASocketWhosePathIsLongerThanTheKernelTakes) {
  const std::string deep = directory_.Path(std::string(120, 'd'));
  std::filesystem::create_directory(deep);
  std::future<void> served;
  {
    const FileDescriptor listener = Listen(directory_.Path("s"));
    std::filesystem::rename(directory_.Path("s"), deep + "/s");
    served = std::async(std::launch::async, [&listener] {
      Connection(FileDescriptor(::accept(listener.number(), nullptr, nullptr), "")).Welcome();
    });
    EXPECT_EQ(ConnectMessage(deep + "/s"), "");
    served.get();
  }
  EXPECT_TELLS(ConnectMessage(deep + "/" + std::string(110, 's')), "too long");
}

TEST_F(QmpClientTest, KeepsEventsThatComeBetweenCommandAndReply) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    c.Say("{\"event\": \"STOP\", \"timestamp\": {}}\r\n{\"event\": \"RESUME\"}\r\n" + Connection::Answer(request, "5"));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_EQ(client.Execute("anything"), 5);
  const auto events = client.TakeEvents();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0]["event"], "STOP");
  EXPECT_EQ(events[1]["event"], "RESUME");
  EXPECT_TRUE(client.TakeEvents().empty());
}

TEST_F(QmpClientTest, KeepsTheNewestEventsOfAFlood) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    for (int i = 0; i < 3000; ++i) c.Say(fmt::format("{{\"event\": \"E{}\"}}\n", i));
    c.Say(Connection::Answer(request));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  client.Execute("anything");
  const auto events = client.TakeEvents();
  EXPECT_EQ(events.size(), 1024U);
  EXPECT_EQ(events.back()["event"], "E2999");
}

// As many of them as are kept would take gigabytes once they are parsed.
TEST_F(QmpClientTest, RefusesAnEventLargerThanAnyOfQemus) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    std::string values = "{}";
    for (int i = 0; i < 7000; ++i) values += ",{}";
    c.Say(fmt::format("{{\"event\": \"STOP\", \"data\": [{}]}}\n", values));
    c.Say(Connection::Answer(request));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  try {
    client.Execute("anything");
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("an event of more than"), std::string::npos) << error.what();
  }
}

TEST_F(QmpClientTest, WaitsForAnEvent) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    c.Say("{\"event\": \"OTHER\"}\n{\"event\": \"STOP\"}\n");
    c.WaitUntilGone();
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_TRUE(client.WaitEvent("STOP", kTestPatience));
  EXPECT_TRUE(client.WaitEvent("STOP", milliseconds(0))) << "it waits for TakeEvents";
  EXPECT_FALSE(client.WaitEvent("NEVER", milliseconds(50)));
  EXPECT_EQ(client.TakeEvents().size(), 2U);
}

TEST_F(QmpClientTest, WaitsUntilTheConnectionIsClosed) {
  std::promise<void> may_close;
  const ScriptedPeer peer([&may_close](Connection& c) {
    c.Welcome();
    c.Say("{\"event\": \"SHUTDOWN\"}\n");
    may_close.get_future().wait();
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_FALSE(client.WaitClosed(milliseconds(50)));
  may_close.set_value();
  EXPECT_TRUE(client.WaitClosed(kTestPatience));
  EXPECT_EQ(client.TakeEvents().size(), 1U);
  EXPECT_TELLS(MessageOf([&] { client.Execute("cont"); }), "QEMU closed the connection");
}

TEST_F(QmpClientTest, PassesOnWhatQemuComplainsAboutWithoutControlCharacters) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    c.Say(fmt::format(R"({{"id": {}, "error": {{"class": "DeviceNotFound", "desc": "no\u001b[2Jsuch"}}}})"
                      "\n",
                      request["id"].get<std::uint64_t>()));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  try {
    client.Execute("device_del");
    FAIL() << "no error";
  } catch (const QmpError& error) {
    EXPECT_EQ(error.error_class(), "DeviceNotFound");
    EXPECT_EQ(error.what(), fmt::format("cannot execute device_del on the guest at {}: no\\x1b[2Jsuch", peer.path()));
  }
}

TEST_F(QmpClientTest, GivesUpOnACommandThatIsNotAnsweredAndThrowsItsLateReplyAway) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto first = c.Hear();
    const auto second = c.Hear();
    c.Say(Connection::Answer(first, "1") + Connection::Answer(second, "2"));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  client.SetTimeout(milliseconds(50));
  EXPECT_TELLS(MessageOf([&] { client.Execute("first"); }), "no answer within 50 ms");
  client.SetTimeout(kTestPatience);
  EXPECT_EQ(client.Execute("second"), 2);
}

TEST_F(QmpClientTest, RefusesAnswersThatAreNotQmp) {
  for (const std::string answer :
       {"hello\n", "[1]\n", "{\"neither\": 1}\n", "{\"return\": 1, \"id\": \"x\"}\n", "{\"return\": 1}\n",
        "{\"error\": {\"desc\": \"Invalid JSON syntax\"}}\n", "{\"error\": 7}\n", "\n", "\xff\xfe\n"}) {
    const ScriptedPeer peer([&answer](Connection& c) {
      c.Welcome();
      c.Hear();
      c.Say(answer);
    });
    QmpClient client(peer.path(), never_, kTestPatience);
    const std::string message = MessageOf([&] { client.Execute("query-status"); });
    EXPECT_TELLS(message, "cannot execute query-status");
    EXPECT_EQ(message.find("closed the connection"), std::string::npos) << answer << message;
  }
}

// A client that went away in the middle leaves an answer behind, which QEMU sends to the next one.
TEST_F(QmpClientTest, PassesOverTheAnswerToAClientBefore) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    c.Say("{\"return\": 1, \"id\": 99}\n" + Connection::Answer(request, "2"));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_EQ(client.Execute("query-status"), 2);
}

TEST_F(QmpClientTest, PassesOverAnswersToAClientBeforeInFrontOfTheGreeting) {
  for (const std::string late : {R"({"return": {}, "id": 99})"
                                 "\n",
                                 R"({"id": "x", "error": {"class": "GenericError", "desc": "no"}})"
                                 "\n"}) {
    const ScriptedPeer peer([&late](Connection& c) {
      c.Say(late);
      c.Welcome();
    });
    EXPECT_EQ(ConnectMessage(peer.path()), "");
  }
}

TEST_F(QmpClientTest, RefusesALineWithoutEnd) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    c.Hear();
    c.Say(std::string(std::size_t{17} << 20, ' '));
    c.WaitUntilGone();
  });
  auto client = std::make_unique<QmpClient>(peer.path(), never_, kTestPatience);
  client->SetTimeout(kTestPatience);
  EXPECT_TELLS(MessageOf([&] { client->Execute("query-status"); }), "a line of more than 16 MiB");
  EXPECT_TELLS(MessageOf([&] { client->Execute("cont"); }), "closed the connection");
}

TEST_F(QmpClientTest, RefusesAnAnswerThatNestsWithoutEnd) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    c.Say(Connection::Answer(request, std::string(100000, '[') + std::string(100000, ']')));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_TELLS(MessageOf([&] { client.Execute("query-status"); }), "not QMP");
}

TEST_F(QmpClientTest, RefusesATextAnswerThatIsNoText) {
  const ScriptedPeer peer([](Connection& c) {
    c.Welcome();
    c.Say(Connection::Answer(c.Hear()));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_TELLS(MessageOf([&] { client.ExecuteHmp("info mtree"); }), "not a text");
}

TEST_F(QmpClientTest, RefusesToSendWhatIsNotUtf8) {
  const ScriptedPeer peer([](Connection& c) { c.Welcome(); });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_TELLS(MessageOf([&] { client.Execute("migrate", {{"uri", "file:\xff"}}); }), "not UTF-8");
}

TEST_F(QmpClientTest, SendsADescriptorWithTheCommand) {
  std::string read_back;
  {
    const ScriptedPeer peer([&read_back](Connection& c) {
      c.Welcome();
      std::array<char, 1024> bytes{};
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
      iovec part{bytes.data(), bytes.size()};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      EXPECT_GT(::recvmsg(c.socket(), &message, 0), 0);
      int number = -1;
      if (message.msg_controllen >= CMSG_LEN(sizeof(int))) {
        std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
      }
      const FileDescriptor received(number, "received");
      std::array<char, 16> content{};
      if (::pread(number, content.data(), content.size(), 0) > 0) read_back = content.data();
      c.Say(Connection::Answer(QmpClient::Json::parse(bytes.data())));
    });
    std::ofstream(directory_.Path("file")) << "marker";
    const FileDescriptor file = OpenFile(directory_.Path("file"), O_RDONLY);
    QmpClient client(peer.path(), never_, kTestPatience);
    client.Execute("getfd", {{"fdname", "f"}}, file.number());
  }
  EXPECT_EQ(read_back, "marker");
}

TEST_F(QmpClientTest, GivesWayToAnInterruptUnlessToldToIgnoreIt) {
  const FileDescriptor event(::eventfd(0, EFD_CLOEXEC), "event");
  const Interrupt interrupt(FileDescriptor(::dup(event.number()), "event"));
  const ScriptedPeer peer([&event](Connection& c) {
    c.Welcome();
    const auto first = c.Hear();
    ::eventfd_write(event.number(), 1);
    const auto second = c.Hear();
    c.Say(Connection::Answer(first, "1") + Connection::Answer(second, "2"));
  });
  QmpClient client(peer.path(), interrupt, kTestPatience);
  client.SetTimeout(kTestPatience);
  try {
    client.Execute("stop");
    FAIL() << "not interrupted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  const QmpClient::Uninterrupted uninterrupted(client);
  EXPECT_EQ(client.Execute("cont"), 2);
}

TEST_F(QmpClientTest, AnswerThatComesLateIsNotLostAmongOthers) {
  const ScriptedPeer peer([&](Connection& c) {
    c.Welcome();
    const auto slow = c.Hear();
    const auto fast = c.Hear();
    c.Say(Connection::Answer(slow, "1"));
    c.Say(Connection::Answer(fast, "2"));
    c.Hear();
    c.WaitUntilGone();
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  const std::uint64_t question = client.Begin("query-status");
  EXPECT_EQ(client.Execute("query-name"), 2);
  EXPECT_FALSE(client.is_behind());
  EXPECT_EQ(client.TryAnswer(question, milliseconds(0)), 1);
  EXPECT_FALSE(client.TryAnswer(client.Begin("query-status"), milliseconds(10)));
  EXPECT_TRUE(client.is_behind());
}

TEST_F(QmpClientTest, AnswerIsNotLostToWhoLooksForEvents) {
  const ScriptedPeer peer([&](Connection& c) {
    c.Welcome();
    c.Say(Connection::Answer(c.Hear(), "1") + R"({"event": "STOP"})"
                                              "\n");
    c.WaitUntilGone();
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  const std::uint64_t question = client.Begin("query-status");
  EXPECT_TRUE(client.WaitEvent("STOP", kTestPatience));
  EXPECT_EQ(client.TryAnswer(question, milliseconds(0)), 1);
}

TEST_F(QmpClientTest, ExecutesOutOfBandWhereThatIsOffered) {
  std::string greeting = kGreeting;
  greeting.replace(greeting.find("[]"), 2, R"(["oob"])");
  const ScriptedPeer peer([&](Connection& c) {
    c.Say(greeting);
    const auto capabilities = c.Hear();
    EXPECT_EQ(capabilities["arguments"]["enable"][0], "oob");
    c.Say(Connection::Answer(capabilities));
    const auto request = c.Hear();
    EXPECT_EQ(request["exec-oob"], "migrate-recover");
    c.Say(Connection::Answer(request, "7"));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_TRUE(client.executes_out_of_band());
  EXPECT_EQ(client.ExecuteOutOfBand("migrate-recover"), 7);
}

TEST_F(QmpClientTest, ExecutesInTurnWhereNothingElseIsOffered) {
  const ScriptedPeer peer([&](Connection& c) {
    c.Welcome();
    const auto request = c.Hear();
    EXPECT_EQ(request["execute"], "migrate-recover");
    c.Say(Connection::Answer(request, "7"));
  });
  QmpClient client(peer.path(), never_, kTestPatience);
  EXPECT_FALSE(client.executes_out_of_band());
  EXPECT_EQ(client.ExecuteOutOfBand("migrate-recover"), 7);
}

class QmpClientWithQemuTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::optional<std::string> executable = QemuFromEnvironment(GetParam());
    if (!executable) GTEST_SKIP() << GetParam() << " names no QEMU";
    qemu_.emplace(*executable, std::vector<std::string>{"-m", "16M"});
  }

  Interrupt never_;
  std::optional<RunningQemu> qemu_;
};

TEST_P(QmpClientWithQemuTest, StopsAndResumesTheGuest) {
  QmpClient client(qemu_->qmp_socket_path(), never_, kTestPatience);
  EXPECT_GE(client.version().major, 4);
  EXPECT_EQ(client.peer_pid(), qemu_->pid());
  const auto before = std::chrono::system_clock::now();
  client.Execute("stop");
  EXPECT_TRUE(client.WaitEvent("STOP", kTestPatience));
  const auto stopped_at = EventTime(client.TakeEvents().back());
  ASSERT_TRUE(stopped_at.has_value());
  EXPECT_GE(*stopped_at + std::chrono::seconds(1), before.time_since_epoch());
  EXPECT_LE(*stopped_at - std::chrono::seconds(1), std::chrono::system_clock::now().time_since_epoch());
  EXPECT_EQ(client.Execute("query-status")["running"], false);
  client.Execute("cont");
  EXPECT_TRUE(client.WaitEvent("RESUME", kTestPatience));
  EXPECT_NE(client.ExecuteHmp("info version").find('.'), std::string::npos);
}

TEST_P(QmpClientWithQemuTest, HandsOverADescriptor) {
  QmpClient client(qemu_->qmp_socket_path(), never_, kTestPatience);
  const FileDescriptor file = OpenFile("/dev/null", O_RDWR);
  client.Execute("getfd", {{"fdname", "null"}}, file.number());
  client.Execute("closefd", {{"fdname", "null"}});
  EXPECT_THROW(client.Execute("closefd", {{"fdname", "null"}}), QmpError);
}

TEST_P(QmpClientWithQemuTest, TakesOverAConnectionOutOfBand) {
  const QmpClient before(qemu_->qmp_socket_path(), never_, kTestPatience);
  ASSERT_TRUE(before.executes_out_of_band());
  QmpClient client(before.socket(), qemu_->qmp_socket_path(), never_, QmpBand::kOut);
  EXPECT_TELLS(MessageOf([&] {
                 client.ExecuteOutOfBand("migrate-recover", {{"uri", "fd:none"}});
               }),
               "Migrate recover can only be run when postcopy is paused");
  EXPECT_EQ(client.Execute("query-status")["running"], true);
}

TEST_P(QmpClientWithQemuTest, ASecondClientIsToldThatTheSocketIsTaken) {
  const QmpClient first(qemu_->qmp_socket_path(), never_, kTestPatience);
  EXPECT_TELLS(MessageOf([&] { const QmpClient second(qemu_->qmp_socket_path(), never_, milliseconds(200)); }),
               "another client holds the QMP socket");
}

TEST_P(QmpClientWithQemuTest, SeesTheGuestEnd) {
  QmpClient client(qemu_->qmp_socket_path(), never_, kTestPatience);
  qemu_->Kill();
  EXPECT_TELLS(MessageOf([&] { client.Execute("query-status"); }), "QEMU closed the connection");
}

INSTANTIATE_TEST_SUITE_P(Qemu, QmpClientWithQemuTest, testing::Values("VMSAVE_QEMU_OLD", "VMSAVE_QEMU_NEW"),
                         [](const auto& test) { return std::string(test.param).substr(12); });

}  // namespace
}  // namespace vmsave
