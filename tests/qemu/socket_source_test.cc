#include "qemu/socket_source.h"

#include <gtest/gtest.h>
#include <limits.h>

#include <optional>
#include <thread>

#include "tests/qemu/multifd_peer.h"
#include "tests/qemu/patience.h"

namespace vmsave {
namespace {

// A socket pair, as the main stream of a migration without channels.
class SocketSourceTest : public testing::Test {
 protected:
  const Interrupt patience_ = InterruptOfHangingTest();
  MultifdPeer peer_{0};
  const FileDescriptor socket_ = peer_.TakeReceivingEnds().main;
  SocketReader reader_{socket_, patience_};
};

Bytes Counting(std::size_t length) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 7 >> 2);
  return bytes;
}

TEST_F(SocketSourceTest, FillsMorePiecesThanOneCallTakes) {
  const Bytes sent = Counting((std::size_t{IOV_MAX} + 10) * 512);
  std::jthread sender([&] { peer_.SendMain(sent); });
  Bytes got(sent.size());
  std::vector<iovec> pieces;
  for (std::size_t at = 0; at < got.size(); at += 512) pieces.push_back({&got[at], 512});
  reader_.ReadAll(pieces);
  EXPECT_TRUE(got == sent);
}

TEST_F(SocketSourceTest, TellsAnEndBetweenFromAnEndWithin) {
  peer_.SendMain(Counting(5));
  peer_.CloseAll();
  Bytes got(4);
  EXPECT_TRUE(reader_.ReadAllOrEnd(got));
  ExpectDamaged([&] { reader_.ReadAllOrEnd(got); }, "cannot read the guest's migration stream: it ends early");
  EXPECT_FALSE(reader_.ReadAllOrEnd(got));
  ExpectDamaged([&] { reader_.ReadAll(std::span(got)); }, "it ends early");
}

TEST_F(SocketSourceTest, PiecesThatAreNotFilledAreAnError) {
  peer_.SendMain(Counting(5));
  peer_.CloseAll();
  Bytes got(6);
  const std::array<iovec, 2> pieces{iovec{&got[0], 3}, iovec{&got[3], 3}};
  ExpectDamaged([&] { reader_.ReadAll(pieces); }, "it ends early");
}

TEST_F(SocketSourceTest, CountsBytesAndStepsBackOne) {
  peer_.SendMain(Counting(10));
  SocketSource source(reader_);
  Bytes got(4);
  source.Read(got);
  source.StepBack();
  EXPECT_EQ(source.position(), FileOffset{3});
  source.Read(got);
  const Bytes all = Counting(10);
  EXPECT_EQ(got, Bytes(all.begin() + 3, all.begin() + 7));
  EXPECT_EQ(source.position(), FileOffset{7});
  source.SkipTo(FileOffset{9});
  source.Read(std::span(got).first(1));
  EXPECT_EQ(got[0], all[9]);
}

// The last byte of a full buffer.
TEST_F(SocketSourceTest, StepsBackAtTheEndOfWhatHasCome) {
  peer_.SendMain(Counting(3));
  SocketSource source(reader_);
  Bytes got(3);
  source.Read(got);
  source.StepBack();
  peer_.SendMain(Counting(1));
  source.Read(std::span(got).first(2));
  EXPECT_EQ(got[0], Counting(3)[2]);
  EXPECT_EQ(got[1], Counting(1)[0]);
}

TEST_F(SocketSourceTest, EndsWithWhatTheCheckThrowsWhileNothingComes) {
  SocketReader reader(socket_, patience_, [] { throw Error(ErrorKind::kFailed, "a channel ends", "enough"); });
  Bytes got(1);
  EXPECT_THROW(reader.ReadSome(got), Error);
}

TEST_F(SocketSourceTest, GivesWayToTheInterruptWhileNothingComes) {
  const Interrupt requested = RequestedInterrupt();
  SocketReader reader(socket_, requested);
  Bytes got(1);
  try {
    reader.ReadSome(got);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
}

}  // namespace
}  // namespace vmsave
