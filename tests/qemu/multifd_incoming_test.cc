#include "qemu/multifd_incoming.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

TEST(MultifdSyncAtTest, QemuKnowsFlushesSince81) {
  EXPECT_EQ(MultifdSyncAt({4, 0, 0}), SyncAt::kEverySection);
  EXPECT_EQ(MultifdSyncAt({7, 2, 22}), SyncAt::kEverySection);
  EXPECT_EQ(MultifdSyncAt({8, 0, 5}), SyncAt::kEverySection);
  EXPECT_EQ(MultifdSyncAt({8, 1, 0}), SyncAt::kFlush);
  EXPECT_EQ(MultifdSyncAt({9, 0, 0}), SyncAt::kFlush);
  EXPECT_EQ(MultifdSyncAt({10, 0, 2}), SyncAt::kFlush);
}

}  // namespace
}  // namespace vmsave
