#include "qemu/process_maps.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

constexpr std::string_view kMaps =
    "1000-3000 rw-s 00000000 fe:00 77     /dev/shm/ram (deleted)\n"
    "3000-5000 rw-s 00002000 fe:00 77     /dev/shm/ram (deleted)\n"
    "5000-6000 rw-s 00000000 fe:00 78     /dev/shm/other\n"
    "8000-9000 r--p 00000000 00:00 0 \n";

TEST(ProcessMapsTest, ReadsALine) {
  const ProcessMapping mapping = ParseProcessMaps(kMaps).front();
  EXPECT_EQ(mapping.start, 0x1000U);
  EXPECT_EQ(mapping.end, 0x3000U);
  EXPECT_TRUE(mapping.writable);
  EXPECT_TRUE(mapping.shared);
  EXPECT_EQ(mapping.device, "fe:00");
  EXPECT_EQ(mapping.inode, 77U);
  EXPECT_EQ(mapping.path, "/dev/shm/ram (deleted)");
}

TEST(ProcessMapsTest, RefusesWhatIsNotALine) {
  for (const char* line :
       {"\n", "1000 rw-s 0 fe:00 1\n", "2000-1000 rw-s 0 fe:00 1\n", "1000-2000 rw 0 fe:00 1\n",
        "1000-2000 rw-s x fe:00 1\n", "1000-2000 rw-s 0 fe:00\n", "1000-2000 rw-s 0 fe:00 99999999999999999999999\n"}) {
    EXPECT_THROW(ParseProcessMaps(line), Error) << line;
  }
}

TEST(ProcessMapsTest, FindsAMappingInSeveralPieces) {
  const auto found = FindFileMapping(ParseProcessMaps(kMaps), 0x2000, ByteCount{0x2000});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->start, 0x2000U);
  EXPECT_EQ(found->end, 0x4000U);
  EXPECT_EQ(found->offset.value(), 0x1000U);
}

TEST(ProcessMapsTest, FindsNothingAcrossFilesHolesAndPrivateMemory) {
  const std::vector<ProcessMapping> mappings = ParseProcessMaps(kMaps);
  EXPECT_FALSE(FindFileMapping(mappings, 0x4000, ByteCount{0x2000})) << "another file follows";
  EXPECT_FALSE(FindFileMapping(mappings, 0x5000, ByteCount{0x2000})) << "a hole follows";
  EXPECT_FALSE(FindFileMapping(mappings, 0x0, ByteCount{0x2000})) << "a hole comes first";
  EXPECT_FALSE(FindFileMapping(mappings, 0x8000, ByteCount{0x1000})) << "no file";
  EXPECT_FALSE(FindFileMapping(mappings, 0x9000, ByteCount{0x1000})) << "behind all";
}

TEST(ProcessMapsTest, ReadsThoseOfThisProcess) {
  EXPECT_FALSE(ReadProcessMaps("self").empty());
}

TEST(ProcessMapsTest, TellsThatThereIsNoSuchProcess) {
  EXPECT_THROW(ReadProcessMaps("0"), Error);
}

}  // namespace
}  // namespace vmsave
