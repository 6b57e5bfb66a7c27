#include "io/file_descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/io/pattern_bytes.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

bool IsOpen(int number) {
  return ::fcntl(number, F_GETFD) >= 0;
}

class FileDescriptorTest : public ::testing::Test {
 protected:
  FileDescriptor Open() const { return OpenFile(scratch_.Path("file"), O_RDWR | O_CREAT, 0600); }

  ScratchDirectory scratch_;
};

TEST_F(FileDescriptorTest, ReadAtGivesBackWhatWriteAtWrote) {
  const AlignedBuffer bytes = PatternBuffer(100'000, 1);
  const FileDescriptor file = Open();
  WriteAt(file, bytes.bytes(), FileOffset{12'345});
  AlignedBuffer back(bytes.size());
  ReadAt(file, back.bytes(), FileOffset{12'345});
  EXPECT_TRUE(std::ranges::equal(bytes.bytes(), back.bytes()));
  EXPECT_EQ(FileLength(file), ByteCount{112'345});
}

TEST_F(FileDescriptorTest, ReadAtPastTheEndIsDamaged) {
  const FileDescriptor file = Open();
  WriteAt(file, PatternBuffer(100, 2).bytes(), FileOffset{0});
  AlignedBuffer back(200);
  try {
    ReadAt(file, back.bytes(), FileOffset{50});
    FAIL() << "read past the end";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDamaged);
    EXPECT_EQ(std::string(error.what()), "cannot read " + file.name() + ": it ends early, after 100 bytes");
  }
}

TEST_F(FileDescriptorTest, ReadUpToStopsAtTheEnd) {
  const AlignedBuffer bytes = PatternBuffer(100, 3);
  const FileDescriptor file = Open();
  WriteAt(file, bytes.bytes(), FileOffset{0});
  AlignedBuffer back(200);
  EXPECT_EQ(ReadUpTo(file, back.bytes(), FileOffset{40}), 60U);
  EXPECT_TRUE(std::ranges::equal(bytes.bytes().last(60), back.bytes().first(60)));
  EXPECT_EQ(ReadUpTo(file, back.bytes(), FileOffset{100}), 0U);
}

TEST_F(FileDescriptorTest, FailedWriteNamesFileAndOffset) {
  Open();
  const FileDescriptor file = OpenFile(scratch_.Path("file"), O_RDONLY);
  try {
    WriteAt(file, PatternBuffer(1, 4).bytes(), FileOffset{77});
    FAIL() << "wrote to a file open for reading";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFailed);
    EXPECT_EQ(std::string(error.what()), "cannot write " + file.name() + " at byte 77: Bad file descriptor");
  }
}

TEST_F(FileDescriptorTest, MissingFileIsNamed) {
  try {
    OpenFile(scratch_.Path("missing"), O_RDONLY);
    FAIL() << "opened a missing file";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "cannot open " + scratch_.Path("missing") + ": No such file or directory");
  }
}

TEST_F(FileDescriptorTest, ChildProgramsDoNotInheritIt) {
  EXPECT_NE(::fcntl(Open().number(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(FileDescriptorTest, MoveHandsTheDescriptorOver) {
  FileDescriptor first = Open();
  const int number = first.number();
  FileDescriptor second(std::move(first));
  EXPECT_EQ(second.number(), number);
  FileDescriptor third = Open();
  const int replaced = third.number();
  third = std::move(second);
  EXPECT_EQ(third.number(), number);
  EXPECT_TRUE(IsOpen(number));
  EXPECT_FALSE(IsOpen(replaced));
}

TEST_F(FileDescriptorTest, DestructorAndCloseClose) {
  int number = -1;
  {
    const FileDescriptor file = Open();
    number = file.number();
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
  FileDescriptor file = Open();
  number = file.number();
  file.Close();
  EXPECT_FALSE(file.valid());
  EXPECT_FALSE(IsOpen(number));
  EXPECT_NO_THROW(file.Close());
}

TEST_F(FileDescriptorTest, CloseReportsWhatTheKernelSays) {
  FileDescriptor file(1'000'000, "the closed one");
  try {
    file.Close();
    FAIL() << "closed a descriptor that is not open";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cannot close the closed one: Bad file descriptor");
  }
}

}  // namespace
}  // namespace vmsave
