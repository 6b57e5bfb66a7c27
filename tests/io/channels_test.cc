#include "io/channels.h"

#include <gtest/gtest.h>
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
