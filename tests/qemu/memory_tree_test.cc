#include "qemu/memory_tree.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

TEST(MemoryTreeTest, TakesRamOfTheSystemsMemoryOnly) {
  const std::vector<RamSection> sections = ReadMemoryTree(
      "FlatView #0\r\n AS \"cpu-smm-0\", root: memory\r\n Root memory region: memory\r\n"
      "  0000000000000000-00000000000c2fff (prio 0, ram): smram\r\n\r\n"
      "FlatView #1\r\n AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n"
      " Root memory region: system\r\n"
      "  0000000000000000-00000000000bffff (prio 0, ram): m0\r\n"
      "  00000000000c0000-00000000000dffff (prio 1, rom): m0 @00000000000c0000\r\n"
      "  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic\r\n"
      "  0000000100000000-00000001bfffffff (prio 0, ram): m1 @0000000040000000 KVM\r\n"
      "  0000000200000000-00000002bfffffff (prio 0, nv-ram): m2 KVM\r\n\r\n"
      "FlatView #2\r\n AS \"I/O\", root: io\r\n"
      "  0000000000000000-0000000000000007 (prio 0, ram): dma\r\n");
  ASSERT_EQ(sections.size(), 3U);
  EXPECT_EQ(sections[0].region, "m0");
  EXPECT_EQ(sections[0].offset.value(), 0U);
  EXPECT_EQ(sections[1].region, "m1");
  EXPECT_EQ(sections[1].address.value(), 0x100000000U);
  EXPECT_EQ(sections[1].offset.value(), 0x40000000U);
  EXPECT_EQ(sections[2].region, "m2");
}

TEST(MemoryTreeTest, LinesThatAreNotUnderstoodTellNothing) {
  const std::string view = "FlatView #0\n AS \"memory\", root: system\n";
  for (const char* line : {"", "  ", "  0-", "  zz-1 (prio 0, ram): a", "  5-1 (prio 0, ram): a", "  0-1 (prio 0",
                           "  0-1 (prio 0, ram)", "  0-1 (prio 0, ram): a @xyz", "  0-1 (prio 0, ramd): a",
                           "  11111111111111111111-2 (prio 0, ram): a", " no such command"}) {
    EXPECT_TRUE(ReadMemoryTree(view + line).empty()) << line;
  }
  EXPECT_TRUE(ReadMemoryTree("  0-1 (prio 0, ram): outside-any-view\n").empty());
}

TEST(MemoryTreeTest, ReadsAHostAddress) {
  EXPECT_EQ(ReadHostAddress("Host virtual address for 0x0 (pc.ram) is 0x7fe8ffe00000\r\n", GuestAddress{0}, "pc.ram"),
            0x7fe8ffe00000U);
}

TEST(MemoryTreeTest, HostAddressOfSomethingElseTellsNothing) {
  const GuestAddress address{0x1000};
  for (const char* text :
       {"", "No memory is mapped at address 0x1000\r\n", "Host virtual address for 0x1000 (other) is 0x7f00\r\n",
        "Host virtual address for 0x2000 (pc.ram) is 0x7f00\r\n", "Host virtual address for 0x1000 (pc.ram) is \r\n",
        "Host virtual address for 0x1000 (pc.ram) is 0x7f00 or so\r\n",
        "Host virtual address for 0x1000 (pc.ram) is 0x11111111111111111\r\n"}) {
    EXPECT_EQ(ReadHostAddress(text, address, "pc.ram"), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace vmsave
