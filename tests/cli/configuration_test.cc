#include "cli/configuration.h"

#include <gtest/gtest.h>

#include <fstream>

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

TEST_F(ConfigurationTest, NamedFileMustBeThere) {
  EXPECT_THROW(ReadConfiguration(scratch_.Path("missing.conf")), Error);
  EXPECT_THROW(ReadConfiguration(scratch_.path().string()), Error);
}

}  // namespace
}  // namespace vmsave
