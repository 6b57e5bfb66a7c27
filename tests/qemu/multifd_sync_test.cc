#include "qemu/multifd_sync.h"

#include <gtest/gtest.h>

#include <deque>
#include <future>
#include <thread>

#include "tests/qemu/patience.h"

namespace vmsave {
namespace {

constexpr unsigned kChannels = 3;
constexpr unsigned kMain = kChannels;
constexpr int kPoints = 3000;

// Sync points as the threads come to them.
class Points {
 public:
  // `pass` returns behind the point.
  template <class Pass>
  void Meet(int point, Pass&& pass) {
    std::atomic<unsigned>& come = come_[static_cast<std::size_t>(point)];
    come.fetch_add(1, std::memory_order_relaxed);
    std::forward<Pass>(pass)();
    if (come.load(std::memory_order_relaxed) != kChannels + 1) ++passed_too_early_;
  }

  // How often a thread went on that others had not come for yet.
  unsigned passed_too_early() const { return passed_too_early_; }

 private:
  std::vector<std::atomic<unsigned>> come_ = std::vector<std::atomic<unsigned>>(kPoints);
  std::atomic<unsigned> passed_too_early_ = 0;
};

// One thread for each channel and one for the main stream.
class MultifdSyncTest : public testing::Test {
 protected:
  using Action = std::function<void(const ChannelContext&)>;

  void Run(const Action& main, const Action& channel) {
    RunChannels(kChannels + 1, patience_,
                [&](const ChannelContext& context) { context.channel() == kMain ? main(context) : channel(context); });
    EXPECT_EQ(points_.passed_too_early(), 0U);
  }

  void MeetAsChannel(int first_point, const ChannelContext& context) {
    for (int point = first_point; point < kPoints; ++point) {
      points_.Meet(point, [&] { sync_.OnSyncPacket(false, context); });
    }
  }

  void MeetAtFlushes(int first_point, const ChannelContext& context) {
    for (int point = first_point; point < kPoints; ++point) {
      points_.Meet(point, [&] { sync_.OnFlush(context); });
      if (point % 3 == 0) sync_.OnEndOfSection(context);  // not a point
    }
  }

  const Interrupt patience_ = InterruptOfHangingTest();
  MultifdSync sync_{kChannels};
  Points points_;
};

// QEMU < 8.1.
TEST_F(MultifdSyncTest, MeetsAtTheEndOfEachSection) {
  Run(
      [&](const ChannelContext& context) {
        sync_.OnEndOfSection(context);  // the block list's
        for (int point = 0; point < kPoints; ++point) {
          points_.Meet(point, [&] { sync_.OnEndOfSection(context); });
        }
      },
      [&](const ChannelContext& context) {
        sync_.OnSyncPacket(true, context);
        MeetAsChannel(0, context);
      });
}

// QEMU >= 8.1.
TEST_F(MultifdSyncTest, MeetsAtFlushesFromTheOneBehindTheBlockListOn) {
  Run(
      [&](const ChannelContext& context) {
        points_.Meet(0, [&] { sync_.OnFlush(context); });
        sync_.OnEndOfSection(context);
        MeetAtFlushes(1, context);
      },
      [&](const ChannelContext& context) {
        points_.Meet(0, [&] { sync_.OnSyncPacket(true, context); });
        MeetAsChannel(1, context);
      });
}

TEST_F(MultifdSyncTest, MeetsAtFlushesWhereNoneStandsBehindTheBlockList) {
  Run(
      [&](const ChannelContext& context) {
        sync_.OnEndOfSection(context);
        MeetAtFlushes(0, context);
      },
      [&](const ChannelContext& context) {
        if (context.channel() == 0) {  // has no page before the first point
          points_.Meet(0, [&] { sync_.OnSyncPacket(true, context); });
          MeetAsChannel(1, context);
        } else {
          sync_.OnFirstPages();
          MeetAsChannel(0, context);
        }
      });
}

TEST_F(MultifdSyncTest, RefusesAFlushWhereSectionsAreThePoints) {
  try {
    Run(
        [&](const ChannelContext& context) {
          sync_.OnEndOfSection(context);
          sync_.OnEndOfSection(context);
          sync_.OnFlush(context);
        },
        [&](const ChannelContext& context) {
          sync_.OnSyncPacket(true, context);
          sync_.OnSyncPacket(false, context);
        });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDamaged);
    EXPECT_NE(std::string(error.what()).find("MULTIFD_FLUSH"), std::string::npos) << error.what();
  }
}

// QEMU 9.1 and 9.2 end with a SYNC that nothing in the main stream answers.
TEST_F(MultifdSyncTest, NobodyWaitsOnceRamIsOver) {
  Run(
      [&](const ChannelContext& context) {
        points_.Meet(0, [&] { sync_.OnFlush(context); });
        sync_.OnEndOfSection(context);
        sync_.OnEndOfRam();
      },
      [&](const ChannelContext& context) {
        points_.Meet(0, [&] { sync_.OnSyncPacket(true, context); });
        sync_.OnSyncPacket(false, context);
        sync_.OnChannelEnd();
      });
}

// Threads that wait, each at another place; what each throws is kept.
class WaitingTest : public MultifdSyncTest {
 protected:
  ~WaitingTest() override { failed_ = true; }

  void Start(const Action& wait) {
    const ChannelContext& context =
        contexts_.emplace_back(static_cast<unsigned>(contexts_.size()), failed_, *interrupt_);
    waiting_.push_back(std::async(std::launch::async, [wait, &context] { wait(context); }));
  }

  // The main stream behind its block list, and channels at each place where one can wait.
  void StartAll() {
    Start([&](const ChannelContext& context) { sync_.OnFlush(context); });
    Start([&](const ChannelContext& context) { sync_.OnSyncPacket(false, context); });
    Start([&](const ChannelContext& context) { sync_.OnSyncPacket(true, context); });
  }

  void ExpectAllThrow(ErrorKind kind, std::string_view words) {
    for (auto& waiting : waiting_) {
      try {
        waiting.get();
        ADD_FAILURE() << "was let through";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), kind) << error.what();
        EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
      }
    }
  }

  void InterruptFromTheStart() { interrupt_ = &requested_; }

  std::atomic<bool> failed_ = false;

 private:
  const Interrupt requested_ = RequestedInterrupt();
  const Interrupt* interrupt_ = &patience_;
  std::deque<ChannelContext> contexts_;
  std::vector<std::future<void>> waiting_;
};

TEST_F(WaitingTest, AChannelThatEndsInTheMiddleIsAnErrorForAllThatWait) {
  StartAll();
  sync_.OnChannelEnd();
  ExpectAllThrow(ErrorKind::kDamaged, "one of its multifd channels was closed in the middle");
}

TEST_F(WaitingTest, AChannelThatHasEndedIsAnErrorForThoseThatComeToWait) {
  sync_.OnChannelEnd();
  StartAll();
  ExpectAllThrow(ErrorKind::kDamaged, "one of its multifd channels was closed in the middle");
}

TEST_F(WaitingTest, EndsWhereAnotherThreadHasFailed) {
  StartAll();
  failed_ = true;
  ExpectAllThrow(ErrorKind::kFailed, "another one has failed");
}

TEST_F(WaitingTest, EndsWhenTheOperatorInterrupts) {
  InterruptFromTheStart();
  StartAll();
  ExpectAllThrow(ErrorKind::kInterrupted, "interrupted");
}

// Nobody knows yet what the sync points are: the block list is over, and one channel is still silent.
TEST_F(WaitingTest, EndsWhileTheSyncPointsAreUnknown) {
  const ChannelContext context(0, failed_, patience_);
  sync_.OnEndOfSection(context);
  Start([&](const ChannelContext& own) { sync_.OnEndOfSection(own); });
  Start([&](const ChannelContext& own) { sync_.OnSyncPacket(true, own); });
  Start([&](const ChannelContext& own) { sync_.OnSyncPacket(true, own); });
  sync_.OnChannelEnd();
  ExpectAllThrow(ErrorKind::kDamaged, "one of its multifd channels was closed in the middle");
}

}  // namespace
}  // namespace vmsave
