#include "format/pc_memory.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = 1 << 30;

std::vector<RamRange> Whole(std::uint64_t ram) {
  return {{GuestAddress{0}, ByteCount{0}, ByteCount{ram}}};
}

std::vector<RamRange> Split(std::uint64_t low, std::uint64_t ram) {
  return {{GuestAddress{0}, ByteCount{0}, ByteCount{low}},
          {GuestAddress{4 * kGiB}, ByteCount{low}, ByteCount{ram - low}}};
}

// As `info mtree` of QEMU 7.2 and 10 tells.
TEST(PcMemoryTest, IsOnePieceAsLongAsItFitsBelowTheDevices) {
  EXPECT_EQ(PcMemory("pc-i440fx-7.2", ByteCount{64 * kMiB}), Whole(64 * kMiB));
  EXPECT_EQ(PcMemory("pc-i440fx-7.2", ByteCount{3583 * kMiB}), Whole(3583 * kMiB));
  EXPECT_EQ(PcMemory("pc-q35-10.0", ByteCount{2815 * kMiB}), Whole(2815 * kMiB));
}

TEST(PcMemoryTest, GoesOnAt4GiBWhereItDoesNot) {
  EXPECT_EQ(PcMemory("pc-i440fx-7.2", ByteCount{3584 * kMiB}), Split(3 * kGiB, 3584 * kMiB));
  EXPECT_EQ(PcMemory("pc-i440fx-10.0", ByteCount{8 * kGiB}), Split(3 * kGiB, 8 * kGiB));
  EXPECT_EQ(PcMemory("pc-q35-7.2", ByteCount{2816 * kMiB}), Split(2 * kGiB, 2816 * kMiB));
}

TEST(PcMemoryTest, WasNotAlignedInOldMachines) {
  EXPECT_EQ(PcMemory("pc-i440fx-1.7", ByteCount{4 * kGiB}), Split(3584 * kMiB, 4 * kGiB));
  EXPECT_EQ(PcMemory("pc-1.3", ByteCount{4 * kGiB}), Split(3584 * kMiB, 4 * kGiB));
  EXPECT_EQ(PcMemory("pc-q35-1.4", ByteCount{4 * kGiB}), Split(2816 * kMiB, 4 * kGiB));
}

TEST(PcMemoryTest, IsNotKnownOfOtherMachines) {
  for (const char* const machine : {"microvm", "virt-9.0", "", "pc", "pseries-7.2"}) {
    EXPECT_THROW(PcMemory(machine, ByteCount{kGiB}), Error) << machine;
  }
  EXPECT_THROW(PcMemory("pc-q35-9.0", ByteCount{1001 * kGiB}), Error);
}

}  // namespace
}  // namespace vmsave
