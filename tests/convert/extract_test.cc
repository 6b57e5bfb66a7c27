#include "convert/extract.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "io/sparse_file.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"
#include "tests/writer/io_ways.h"

namespace vmsave {
namespace {

class ExtractTest : public testing::TestWithParam<Copy> {
 protected:
  void SetUp() override { WriteCopy(image_path_, guest_, GetParam()); }

  WriteTotals Block(const std::string& name, const ReadOptions& options = {2}) const {
    NewFile file(file_path_, Replace::kYes, options.cache);
    Progress progress;
    const WriteTotals totals =
        ExtractBlock(Image(image_path_), name, file, options, PageChecks::kOn, progress, Interrupt());
    file.Publish();
    return totals;
  }

  void ElfCore() const {
    NewFile file(file_path_, Replace::kYes, CacheUse::kPageCache);
    Progress progress;
    ExtractElfCore(Image(image_path_), file, {2}, PageChecks::kOn, progress, Interrupt());
    file.Publish();
  }

  ScratchDirectory directory_;
  std::string image_path_ = directory_.Path("vm.sav");
  std::string file_path_ = directory_.Path("ram");
  SmallGuest guest_;
};

INSTANTIATE_TEST_SUITE_P(Copies, ExtractTest, testing::ValuesIn(kAllCopies),
                         [](const auto& shown) { return CopyName(shown.param); });

TEST_P(ExtractTest, GivesEachBlockAsItIs) {
  for (const RamBlock& block : guest_.image().blocks) {
    const WriteTotals totals = Block(block.name);

    EXPECT_TRUE(std::ranges::equal(ReadWholeFile(file_path_), block.memory)) << block.name;
    EXPECT_EQ(totals.ram, block.length());
    EXPECT_EQ(totals.file_length, block.length());
  }
}

TEST_P(ExtractTest, LeavesHolesForAbsentPages) {
  Block("pc.ram");

  const FileDescriptor file = OpenFile(file_path_, O_RDONLY);
  for (std::uint64_t page = 0; page < guest_.image().blocks[0].pages(); ++page) {
    const FileOffset at{page * kPageBytes};
    EXPECT_EQ(NextData(file, at, at + kPageSize).has_value(), guest_.IsPresent(0, page)) << page;
  }
}

TEST_P(ExtractTest, NamesTheBlocksWhereThereIsNoneOfThatName) {
  try {
    Block("vga.rom");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("it has pc.ram, pc.bios, vga.vram"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(file_path_));
}

TEST_P(ExtractTest, GivesTheMainMemoryAsAnElfCore) {
  ElfCore();

  const Bytes core = ReadWholeFile(file_path_);
  Elf64_Ehdr head;
  std::memcpy(&head, core.data(), sizeof head);
  ASSERT_EQ(std::memcmp(head.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(head.e_type, ET_CORE);
  ASSERT_EQ(head.e_phnum, 2);
  Elf64_Phdr load;
  std::memcpy(&load, core.data() + head.e_phoff + sizeof load, sizeof load);
  EXPECT_EQ(load.p_type, static_cast<Elf64_Word>(PT_LOAD));
  EXPECT_EQ(load.p_paddr, 0U);
  ASSERT_EQ(load.p_offset + load.p_filesz, core.size());
  EXPECT_TRUE(std::ranges::equal(std::span(core).subspan(load.p_offset), guest_.image().blocks[0].memory));
}

// A stream may bring a page and take it back.
TEST(ExtractStreamTest, APageThatBecameZeroIsAHole) {
  const ScratchDirectory directory;
  const std::string path = directory.Path("vm.stream");
  StreamFrame frame;
  frame.machine = "pc-i440fx-7.2";
  ByteWriter stream;
  const std::vector<BlockShape> blocks{{"pc.ram", ByteCount{4 * kPageBytes}}};
  AppendLegacyHead(stream, frame, blocks);
  for (const std::uint64_t page : {1, 2}) {
    stream.Append(MakeRecordHead("pc.ram", PageIndex{page}, true, page != 1).bytes());
    stream.Append(Bytes(kPageBytes, std::byte{0x5a}));
  }
  stream.Append(MakeRecordHead("pc.ram", PageIndex{1}, false, true).bytes());
  stream.AppendZeros(1);
  AppendLegacyTail(stream, frame, MakeDeviceState());
  WriteWholeFile(path, stream.Take());

  NewFile file(directory.Path("ram"), Replace::kNo, CacheUse::kPageCache);
  Progress progress;
  const WriteTotals totals = ExtractBlock(Image(path), "pc.ram", file, {}, PageChecks::kOn, progress, Interrupt());
  file.Publish();

  Bytes wanted(4 * kPageBytes);
  std::ranges::fill(std::span(wanted).subspan(2 * kPageBytes, kPageBytes), std::byte{0x5a});
  EXPECT_EQ(ReadWholeFile(directory.Path("ram")), wanted);
  EXPECT_EQ(totals.present, kPageSize);
}

}  // namespace
}  // namespace vmsave
