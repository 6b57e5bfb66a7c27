#include "cli/configuration.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "io/file_descriptor.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

class ConfigurationTest : public ::testing::Test {
 protected:
  Configuration Read(const std::string& text) {
    const std::string path = scratch_.Path("vmsave.conf");
    std::ofstream(path) << text;
    return ReadConfiguration(path);
  }

  void ExpectRefused(const std::string& text, const std::string& line, const std::string& why) {
    try {
      Read(text);
      ADD_FAILURE() << "taken: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find("line " + line + ":"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  }

  ScratchDirectory scratch_;
};

TEST_F(ConfigurationTest, EveryKeyIsTaken) {
  const Configuration configuration = Read(
      "# defaults of this host\nsave_image_version = 3\nparallel = 4\nbypass_cache = true\nio_engine = \"sync\"\n");
  EXPECT_EQ(configuration.save_image_version, 3);
  EXPECT_EQ(configuration.parallel, 4U);
  EXPECT_EQ(configuration.bypass_cache, true);
  EXPECT_EQ(configuration.io_engine, "sync");
}

TEST_F(ConfigurationTest, EmptyFileSaysNothing) {
  const Configuration configuration = Read("# nothing\n\n");
  EXPECT_FALSE(configuration.save_image_version);
  EXPECT_FALSE(configuration.parallel);
}

TEST_F(ConfigurationTest, UnknownKeyIsRefusedWithItsLine) {
  ExpectRefused("parallel = 4\n\nsave_image_verson = 3\n", "3", "save_image_verson");
}

TEST_F(ConfigurationTest, BadValuesAreRefusedWithTheirLine) {
  ExpectRefused("save_image_version = 4\n", "1", "from 2 to 3");
  ExpectRefused("save_image_version = \"3\"\n", "1", "from 2 to 3");
  ExpectRefused("# first\nparallel = 257\n", "2", "from 1 to 256");
  ExpectRefused("bypass_cache = 1\n", "1", "true or false");
  ExpectRefused("io_engine = \"aio\"\n", "1", "uring");
}

TEST_F(ConfigurationTest, WhatIsNoConfigurationIsRefusedWithItsLine) {
  ExpectRefused("parallel = 4\nparallel ==\n", "2", "");
}

// A file that includes itself twice makes 2^10 readings of 11 lines.
TEST_F(ConfigurationTest, OtherFilesAreNotIncluded) {
  ExpectRefused("parallel = 4\n @include \"other.conf\"\n", "2", "@include");
  ExpectRefused("@include \"" + scratch_.Path("vmsave.conf") + "\"\n", "1", "@include");
}

TEST_F(ConfigurationTest, WhatIsNoTextIsRefused) {
  const auto expect_failed = [&](const std::string& text, const std::string& why) {
    try {
      Read(text);
      ADD_FAILURE() << "taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  expect_failed(std::string("parallel = 4\n\0", 14), "NUL");
  expect_failed(std::string(100'000, ' '), "longer than");
}

TEST_F(ConfigurationTest, FileWithoutEndIsRefused) {
  EXPECT_THROW(ReadConfiguration("/dev/zero"), Error);
}

TEST_F(ConfigurationTest, IsReadFromAPipe) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const FileDescriptor out(ends[0], "pipe");
  constexpr std::string_view kText = "parallel = 4\n";
  {
    const FileDescriptor in(ends[1], "pipe");
    ASSERT_EQ(::write(in.number(), kText.data(), kText.size()), static_cast<ssize_t>(kText.size()));
  }
  EXPECT_EQ(ReadConfiguration("/proc/self/fd/" + std::to_string(out.number())).parallel, 4U);
}

TEST_F(ConfigurationTest, NamedFileMustBeThere) {
  EXPECT_THROW(ReadConfiguration(scratch_.Path("missing.conf")), Error);
  EXPECT_THROW(ReadConfiguration(scratch_.path().string()), Error);
}

}  // namespace
}  // namespace vmsave
