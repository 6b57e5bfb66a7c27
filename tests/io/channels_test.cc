#include "io/channels.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

namespace vmsave {
namespace {

TEST(ChannelsTest, EveryItemIsTakenOnceByWhateverChannel) {
  constexpr std::uint64_t kItems = 10000;
  WorkQueue queue(kItems);
  std::mutex mutex;
  std::multiset<std::uint64_t> taken;
  RunChannels(8, Interrupt(), [&](const ChannelContext& context) {
    std::multiset<std::uint64_t> mine;
    while (context.GoOn()) {
      const auto item = queue.Take();
      if (!item) break;
      mine.insert(*item);
    }
    const std::lock_guard lock(mutex);
    taken.merge(mine);
  });
  EXPECT_EQ(taken.size(), kItems);
  EXPECT_EQ(std::set(taken.begin(), taken.end()).size(), kItems);
  EXPECT_EQ(*taken.rbegin(), kItems - 1);
}

TEST(ChannelsTest, EachChannelHasItsOwnNumber) {
  std::mutex mutex;
  std::set<unsigned> numbers;
  RunChannels(5, Interrupt(), [&](const ChannelContext& context) {
    const std::lock_guard lock(mutex);
    numbers.insert(context.channel());
  });
  EXPECT_EQ(numbers, (std::set<unsigned>{0, 1, 2, 3, 4}));
}

TEST(ChannelsTest, FailureOfOneEndsTheOthersAndIsThrownAgain) {
  const auto run = [] {
    RunChannels(4, Interrupt(), [](const ChannelContext& context) {
      if (context.channel() == 2) throw Error(ErrorKind::kDamaged, "page", "wrong");
      while (context.GoOn()) std::this_thread::yield();
    });
  };
  try {
    run();
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDamaged);
  }
}

TEST(ChannelsTest, WhoWaitsElsewhereIsWokenByTheFirstFailure) {
  std::atomic<bool> woken = false;
  std::atomic<int> calls = 0;
  const auto body = [&](const ChannelContext& context) {
    if (context.channel() % 2 == 0) throw std::logic_error("odd");
    woken.wait(false);
  };
  const auto wake = [&] {
    ++calls;
    woken = true;
    woken.notify_all();
  };
  EXPECT_THROW(RunChannels(4, Interrupt(), body, wake), std::logic_error);
  EXPECT_EQ(calls, 1);
}

// Threads with a stack that no address space has room for.
class HugeStacks {
 public:
  HugeStacks() {
    ::pthread_getattr_default_np(&before_);
    pthread_attr_t huge;
    ::pthread_attr_init(&huge);
    ::pthread_attr_setstacksize(&huge, std::size_t{1} << 47);
    ::pthread_setattr_default_np(&huge);
    ::pthread_attr_destroy(&huge);
  }
  ~HugeStacks() {
    ::pthread_setattr_default_np(&before_);
    ::pthread_attr_destroy(&before_);
  }
  HugeStacks(const HugeStacks&) = delete;
  HugeStacks& operator=(const HugeStacks&) = delete;

 private:
  pthread_attr_t before_{};
};

TEST(ChannelsTest, ThreadThatCannotBeStartedIsAFailure) {
  const HugeStacks stacks;
  int calls = 0;
  try {
    RunChannels(
        2, Interrupt(), [](const ChannelContext&) {}, [&] { ++calls; });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find("cannot start a channel's thread"), std::string_view::npos);
  }
  EXPECT_EQ(calls, 1);
}

TEST(ChannelsTest, ExceptionsOfOtherTypesAreCarriedToo) {
  EXPECT_THROW(RunChannels(2, Interrupt(), [](const ChannelContext&) { throw std::logic_error("odd"); }),
               std::logic_error);
}

TEST(ChannelsTest, InterruptEndsAllChannels) {
  FileDescriptor event(::eventfd(1, EFD_CLOEXEC), "eventfd");
  const Interrupt interrupt(std::move(event));
  std::atomic<int> rounds = 0;
  try {
    RunChannels(4, interrupt, [&](const ChannelContext& context) {
      while (context.GoOn()) ++rounds;
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_EQ(rounds, 0);
}

}  // namespace
}  // namespace vmsave
