#include "io/io_priority.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

namespace vmsave {
namespace {

// Of the calling thread, as ioprio_get(2) tells it.
long ClassNow() {
  return ::syscall(SYS_ioprio_get, /*IOPRIO_WHO_PROCESS*/ 1, 0) >> 13;
}

TEST(IoPriorityTest, IsThatOfOneThread) {
  const long before = ClassNow();
  std::thread([] {
    EXPECT_TRUE(SetIoPriority(IoPriority::kLast));
    EXPECT_EQ(ClassNow(), 3);
    EXPECT_TRUE(SetIoPriority(IoPriority::kNormal));
    EXPECT_EQ(ClassNow(), 2);
  }).join();
  EXPECT_EQ(ClassNow(), before);
}

TEST(IoPriorityTest, FirstIsForThePrivilegedAndLeavesOthersAsTheyWere) {
  std::thread([] {
    ASSERT_TRUE(SetIoPriority(IoPriority::kNormal));
    const bool may = SetIoPriority(IoPriority::kFirst);
    EXPECT_EQ(ClassNow(), may ? 1 : 2);
  }).join();
}

}  // namespace
}  // namespace vmsave
