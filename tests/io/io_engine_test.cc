// What the base class does with the results of an engine, on an engine whose results the test makes up.
#include "io/io_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <string>
#include <vector>

#include "tests/io/pattern_bytes.h"

namespace vmsave {
namespace {

// Writes into and reads from memory, and moves as many bytes as its script says; a negative number is an errno.
class ScriptedEngine final : public IoEngine {
 public:
  ScriptedEngine(std::size_t size, std::deque<std::int64_t> script)
      : IoEngine(4), memory_(size), script_(std::move(script)) {}

  EngineKind kind() const override { return EngineKind::kSync; }
  const std::vector<std::byte>& memory() const { return memory_; }
  void RefuseToStart() { refuses_to_start_ = true; }
  void RefuseToWait() { refuses_to_wait_ = true; }

 private:
  void Start(const Transfer& transfer) override {
    if (refuses_to_start_) throw Error::FromErrno("cannot start", ENOMEM);
    started_.push_back(transfer);
  }

  Completion WaitForOne() override {
    if (refuses_to_wait_) throw Error::FromErrno("cannot wait", EBADF);
    const Transfer transfer = started_.front();
    started_.pop_front();
    std::int64_t result = static_cast<std::int64_t>(transfer.length);
    if (!script_.empty()) {
      result = script_.front();
      script_.pop_front();
    }
    if (result > 0) Move(transfer, static_cast<std::size_t>(result));
    return {transfer.slot, result};
  }

  void Move(const Transfer& transfer, std::size_t count) {
    const std::span<std::byte> place = std::span(memory_).subspan(transfer.offset.value(), count);
    const std::span<std::byte> bytes(transfer.bytes, count);
    if (transfer.direction == Direction::kWrite) {
      std::ranges::copy(bytes, place.begin());
    } else {
      std::ranges::copy(place, bytes.begin());
    }
  }

  std::vector<std::byte> memory_;
  std::deque<std::int64_t> script_;
  std::deque<Transfer> started_;
  bool refuses_to_start_ = false;
  bool refuses_to_wait_ = false;
};

const FileDescriptor& Image() {
  static const FileDescriptor image(-1, "/srv/saves/vm1.sav");
  return image;
}

template <class Call>
std::string ErrorOf(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(IoEngineTest, ShortTransfersContinueAtNextByte) {
  ScriptedEngine engine(10'000, {1000, 1, 3000, 7, 999, 4000});
  const AlignedBuffer bytes = PatternBuffer(10'000, 1);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0}, 42);
  EXPECT_EQ(engine.Wait(), 42U);
  EXPECT_TRUE(std::ranges::equal(bytes.bytes(), engine.memory()));
  AlignedBuffer back(10'000);
  engine.SubmitRead(Image(), back.bytes(), FileOffset{0}, 43);
  EXPECT_EQ(engine.Wait(), 43U);
  EXPECT_TRUE(std::ranges::equal(bytes.bytes(), back.bytes()));
}

TEST(IoEngineTest, InterruptedAndTooEarlyTransfersAreTriedAgain) {
  ScriptedEngine engine(4096, {-EINTR, -EAGAIN, 100, -EINTR, -EAGAIN});
  const AlignedBuffer bytes = PatternBuffer(4096, 2);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0});
  engine.Wait();
  EXPECT_TRUE(std::ranges::equal(bytes.bytes(), engine.memory()));
}

TEST(IoEngineTest, WriteOfNothingIsAnErrorAndNotTriedForEver) {
  ScriptedEngine engine(4096, {1024, 0});
  const AlignedBuffer bytes = PatternBuffer(4096, 3);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0});
  EXPECT_EQ(ErrorOf([&] { engine.Wait(); }),
            "cannot write /srv/saves/vm1.sav at byte 1024: the kernel wrote nothing (free some space on that file "
            "system)");
  EXPECT_EQ(engine.in_flight(), 0U);
}

TEST(IoEngineTest, FailureNamesFileOffsetReasonAndRemedy) {
  ScriptedEngine engine(0, {-ENOSPC, -EIO});
  const AlignedBuffer bytes = PatternBuffer(4096, 4);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{12U << 20U});
  EXPECT_EQ(ErrorOf([&] { engine.Wait(); }),
            "cannot write /srv/saves/vm1.sav at 12.0 MiB: No space left on device (free some space on that file "
            "system)");
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{std::uint64_t{100} << 30U});
  EXPECT_EQ(ErrorOf([&] { engine.Wait(); }),
            "cannot write /srv/saves/vm1.sav at 100.0 GiB: Input/output error (the kernel log tells what happened to "
            "the device)");
}

TEST(IoEngineTest, RefusedRestOfADirectWritePointsToTheFreeSpace) {
  ScriptedEngine engine(4096, {1000, -EINVAL});
  const AlignedBuffer bytes = PatternBuffer(4096, 5);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0});
  EXPECT_EQ(ErrorOf([&] { engine.Wait(); }),
            "cannot write /srv/saves/vm1.sav at byte 1000: the kernel stopped within a block of direct I/O and refused "
            "the rest (look at the free space and the quota of that file system)");
}

TEST(IoEngineTest, DrainThrowsTheFirstFailureOnceAllIsDone) {
  ScriptedEngine engine(4096, {1024, -EIO, -ENOSPC, 1024});
  AlignedBuffer bytes = PatternBuffer(4096, 6);
  for (std::size_t at = 0; at < 4096; at += 1024) {
    engine.SubmitWrite(Image(), bytes.bytes().subspan(at, 1024), FileOffset{at});
  }
  EXPECT_NE(ErrorOf([&] { engine.Drain(); }).find("Input/output error"), std::string::npos);
  EXPECT_EQ(engine.in_flight(), 0U);
  EXPECT_TRUE(std::ranges::equal(bytes.bytes().last(1024), std::span(engine.memory()).last(1024)));
}

TEST(IoEngineTest, RequestThatCannotBeStartedIsNotInFlight) {
  ScriptedEngine engine(4096, {});
  engine.RefuseToStart();
  AlignedBuffer bytes = PatternBuffer(4096, 7);
  EXPECT_EQ(ErrorOf([&] { engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0}); }),
            "cannot start: Cannot allocate memory");
  EXPECT_EQ(engine.in_flight(), 0U);
}

TEST(IoEngineTest, RequestWhoseRestCannotBeStartedIsNotInFlight) {
  ScriptedEngine engine(4096, {1000});
  AlignedBuffer bytes = PatternBuffer(4096, 8);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0});
  engine.RefuseToStart();
  EXPECT_EQ(ErrorOf([&] { engine.Drain(); }), "cannot start: Cannot allocate memory");
  EXPECT_EQ(engine.in_flight(), 0U);
}

TEST(IoEngineTest, DrainEndsWhereWaitingIsImpossible) {
  ScriptedEngine engine(4096, {});
  AlignedBuffer bytes = PatternBuffer(4096, 9);
  engine.SubmitWrite(Image(), bytes.bytes(), FileOffset{0});
  engine.RefuseToWait();
  EXPECT_EQ(ErrorOf([&] { engine.Drain(); }), "cannot wait: Bad file descriptor");
  EXPECT_EQ(engine.in_flight(), 1U);
}

TEST(IoEngineTest, EnginesHaveNames) {
  EXPECT_EQ(EngineName(EngineKind::kUring), "uring");
  EXPECT_EQ(EngineName(EngineKind::kSync), "sync");
}

}  // namespace
}  // namespace vmsave
