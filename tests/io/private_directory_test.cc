#include "io/private_directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

namespace fs = std::filesystem;

// Sets an environment variable for as long as it lives.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    ::setenv(name, value.c_str(), 1);
  }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;
  ~Setting() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

struct stat StatusOf(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status;
}

FileDescriptor ListenAt(const std::string& path) {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  EXPECT_LT(path.size(), sizeof(address.sun_path));
  std::memcpy(&address.sun_path[0], path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
  EXPECT_EQ(::bind(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return socket;
}

// Short enough for a socket's name, which the place of the other tests' files need not be.
class PrivateDirectoryTest : public testing::Test {
 protected:
  PrivateDirectoryTest() : in_tmp_("VMSAVE_TEST_DIR", "/tmp"), runtime_("XDG_RUNTIME_DIR", place_.path().native()) {}

  Setting in_tmp_;
  ScratchDirectory place_;
  Setting runtime_;
};

TEST_F(PrivateDirectoryTest, LetsOnlyItsOwnerIn) {
  const PrivateDirectory directory;
  EXPECT_EQ(StatusOf(directory.path()).st_mode, S_IFDIR | 0700U);
  EXPECT_EQ(StatusOf(directory.path()).st_uid, ::geteuid());
}

// As root finds it in the environment that su or sudo -E leaves him.
TEST_F(PrivateDirectoryTest, IsNotMadeInAnotherUsersDirectory) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a directory away";
  constexpr uid_t kAnother = 12345;
  const ScratchDirectory temporary;
  const Setting second("TMPDIR", temporary.path().native());
  ASSERT_EQ(::chown(place_.path().c_str(), kAnother, kAnother), 0);
  EXPECT_EQ(fs::path(PrivateDirectory().path()).parent_path(), temporary.path());
  ASSERT_EQ(::chown(temporary.path().c_str(), kAnother, kAnother), 0);
  EXPECT_EQ(fs::path(PrivateDirectory().path()).parent_path(), "/tmp");
}

TEST_F(PrivateDirectoryTest, IsMadeWhereOthersCanWriteOnlyIfTheyCannotRenameIt) {
  for (const auto& [mode, is_taken] :
       std::map<mode_t, bool>{{0777, false}, {0770, false}, {01777, true}, {0755, true}}) {
    ASSERT_EQ(::chmod(place_.path().c_str(), mode), 0);
    EXPECT_EQ(fs::path(PrivateDirectory().path()).parent_path() == place_.path(), is_taken) << std::oct << mode;
  }
}

TEST_F(PrivateDirectoryTest, GoesWithTheFilesAndSocketsInIt) {
  {
    const PrivateDirectory directory;
    EXPECT_EQ(fs::path(directory.path()).parent_path(), place_.path());
    std::ofstream(directory.Path("file")) << "x";
    ListenAt(directory.Path("socket"));
    EXPECT_TRUE(fs::is_socket(directory.Path("socket")));
  }
  EXPECT_TRUE(fs::is_empty(place_.path()));
}

TEST_F(PrivateDirectoryTest, LeavesAloneWhatLinksInItLeadTo) {
  const ScratchDirectory other;
  std::ofstream(other.Path("file")) << "x";
  {
    const PrivateDirectory directory;
    fs::create_symlink(other.Path("file"), directory.Path("to-file"));
    fs::create_symlink(other.path(), directory.Path("to-directory"));
  }
  EXPECT_TRUE(fs::exists(other.Path("file")));
  EXPECT_TRUE(fs::is_empty(place_.path()));
}

TEST_F(PrivateDirectoryTest, LeavesADirectoryInItThere) {
  std::string left;
  {
    const PrivateDirectory directory;
    left = directory.Path("kept");
    fs::create_directory(left);
    std::ofstream(left + "/file") << "x";
    std::ofstream(directory.Path("gone")) << "x";
  }
  EXPECT_TRUE(fs::exists(left + "/file"));
  EXPECT_FALSE(fs::exists(fs::path(left).parent_path() / "gone"));
}

TEST_F(PrivateDirectoryTest, TakesTheNextPlaceWhereOneCannotBeUsed) {
  const ScratchDirectory temporary;
  const Setting fallback("TMPDIR", temporary.path().native());
  for (const std::string& unusable : {std::string(""), std::string("relative"), place_.Path("none")}) {
    const Setting runtime("XDG_RUNTIME_DIR", unusable);
    EXPECT_EQ(fs::path(PrivateDirectory().path()).parent_path(), temporary.path()) << unusable;
  }
}

TEST_F(PrivateDirectoryTest, KeepsSocketNamesShortEnoughForTheirAddress) {
  const std::string longest_name(PrivateDirectory::kMaxNameBytes, 's');
  const Setting temporary("TMPDIR", place_.Path("none"));
  std::size_t of_wanted_place = 0;
  for (std::size_t length = 1; length < 110; ++length) {
    const std::string place = place_.Path(std::string(length, 'x'));
    fs::create_directory(place);
    const Setting runtime("XDG_RUNTIME_DIR", place);
    const PrivateDirectory directory;
    if (directory.path().starts_with(place)) ++of_wanted_place;
    ListenAt(directory.Path(longest_name));
    EXPECT_TRUE(fs::is_socket(directory.Path(longest_name)));
  }
  EXPECT_GT(of_wanted_place, 0U);
  EXPECT_LT(of_wanted_place, 109U);
}

TEST_F(PrivateDirectoryTest, ForAnyUserIsMadeWhereAllCanCome) {
  EXPECT_EQ(fs::path(PrivateDirectory(PrivateDirectory::Reach::kAnyUser).path()).parent_path(), "/tmp");
}

TEST_F(PrivateDirectoryTest, IsGivenToAnotherUserAndStillGoes) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give something away";
  constexpr uid_t kUser = 12345;
  constexpr gid_t kGroup = 23456;
  std::string path;
  {
    PrivateDirectory directory(PrivateDirectory::Reach::kAnyUser);
    path = directory.path();
    directory.GiveTo(kUser, kGroup);
    EXPECT_EQ(StatusOf(path).st_mode, S_IFDIR | 0700U);
    EXPECT_EQ(StatusOf(path).st_uid, kUser);
    EXPECT_EQ(StatusOf(path).st_gid, kGroup);
    std::ofstream(directory.Path("file")) << "x";
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(PrivateDirectoryTest, GivesItselfAndNotWhatStandsInItsPlace) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give something away";
  const ScratchDirectory other;
  PrivateDirectory directory;
  fs::rename(directory.path(), place_.Path("moved"));
  fs::create_symlink(other.path(), directory.path());
  directory.GiveTo(12345, 23456);
  EXPECT_EQ(StatusOf(other.path().native()).st_uid, 0U);
  EXPECT_EQ(StatusOf(place_.Path("moved")).st_uid, 12345U);
}

}  // namespace
}  // namespace vmsave
