#include "qemu/socket_sink.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "tests/format/byte_strings.h"

namespace vmsave {
namespace {

class SocketSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    here_ = FileDescriptor(ends[0], "here");
    there_ = FileDescriptor(ends[1], "there");
  }

  // Up to the end.
  Bytes ReceiveAll() const {
    Bytes all;
    std::array<std::byte, 65536> piece{};
    for (ssize_t got = 0; (got = ::read(there_.number(), piece.data(), piece.size())) > 0;) {
      all.insert(all.end(), piece.begin(), piece.begin() + got);
    }
    return all;
  }

  static Bytes Numbered(std::size_t length) {
    Bytes bytes(length);
    for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 31 >> 3);
    return bytes;
  }

  FileDescriptor here_;
  FileDescriptor there_;
};

TEST_F(SocketSinkTest, SendsMoreThanTheSocketHoldsInOrderAndWhole) {
  const Bytes sent = Numbered(8 << 20);
  std::vector<iovec> pieces;
  for (std::size_t at = 0; at < sent.size(); at += 4096) {
    pieces.push_back({const_cast<std::byte*>(&sent[at]), 4096});  // more pieces than one call takes
  }
  std::jthread sender([&] {
    SocketSink(here_, Interrupt()).Write(pieces);
    ::shutdown(here_.number(), SHUT_WR);
  });
  EXPECT_TRUE(ReceiveAll() == sent);
}

TEST_F(SocketSinkTest, FailsWhereTheOtherEndIsClosed) {
  there_.Close();
  const Interrupt interrupt;
  SocketSink sink(here_, interrupt);
  try {
    sink.Write(Numbered(10));
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFailed);
    EXPECT_NE(std::string(error.what()).find("QEMU gave up"), std::string::npos) << error.what();
  }
}

TEST_F(SocketSinkTest, GivesWayToTheInterruptWhereNobodyReads) {
  const Interrupt interrupt(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
  SocketSink sink(here_, interrupt);
  try {
    sink.Write(Numbered(8 << 20));
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

TEST_F(SocketSinkTest, GivesWayToItsCheckWhereNobodyReads) {
  const Interrupt interrupt;
  SocketSink sink(here_, interrupt, [] { throw std::runtime_error("another part has failed"); });
  EXPECT_THROW(sink.Write(Numbered(8 << 20)), std::runtime_error);
}

}  // namespace
}  // namespace vmsave
