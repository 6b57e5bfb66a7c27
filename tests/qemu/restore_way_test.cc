#include "qemu/restore_way.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

class BackendThatMayHoldDataTest : public testing::Test {
 protected:
  static bool MayHold(const std::string& path) {
    return MayHoldData({.id = "pc.ram", .type = "memory-backend-file", .size = ByteCount{8192}, .path = path});
  }

  std::string MakeFile(const std::string& bytes) const {
    std::ofstream(scratch_.Path("ram"), std::ios::binary) << bytes;
    std::filesystem::resize_file(scratch_.Path("ram"), 8192);
    return scratch_.Path("ram");
  }

  ScratchDirectory scratch_;
};

TEST_F(BackendThatMayHoldDataTest, FreshMemoryHoldsNone) {
  EXPECT_FALSE(MayHold(""));
  EXPECT_FALSE(MayHold(scratch_.path().string()));
  EXPECT_FALSE(MayHold(MakeFile("")));
}

TEST_F(BackendThatMayHoldDataTest, FileWithDataDoes) {
  EXPECT_TRUE(MayHold(MakeFile("data")));
}

TEST_F(BackendThatMayHoldDataTest, WhatCannotBeLookedAtMay) {
  std::filesystem::create_symlink("loop", scratch_.Path("loop"));
  EXPECT_TRUE(MayHold(scratch_.Path("missing")));
  EXPECT_TRUE(MayHold(scratch_.Path("loop")));
  EXPECT_TRUE(MayHold(scratch_.Path("loop/ram")));
  EXPECT_TRUE(MayHold(scratch_.Path(std::string(300, 'a'))));
}

// Its length is 0, as far as one can see.
TEST_F(BackendThatMayHoldDataTest, DeviceMay) {
  EXPECT_TRUE(MayHold("/dev/null"));
}

}  // namespace
}  // namespace vmsave
