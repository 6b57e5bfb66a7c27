#include "io/new_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/io/child_process.h"
#include "tests/io/pattern_bytes.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

namespace fs = std::filesystem;

class NewFileTest : public ::testing::Test {
 protected:
  std::string Target() const { return scratch_.Path("vm1.sav"); }

  void MakeTarget(const std::string& text) const { std::ofstream(Target()) << text; }

  std::string TargetText() const {
    std::ifstream file(Target());
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(scratch_.path())) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  // The text of the error of creating `path`; "" where it works. Nothing may be left behind by an error.
  std::string ErrorOfCreating(const std::string& path, Replace replace = Replace::kYes) const {
    const std::set<std::string> before = Names();
    try {
      NewFile file(path, replace, CacheUse::kPageCache);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFailed);
      EXPECT_EQ(Names(), before);
      return error.what();
    }
  }

  ScratchDirectory scratch_;
};

// `text` with the six random characters of a temporary name, which are letters and digits, replaced by "XXXXXX".
std::string WithoutRandomCharacters(std::string text) {
  const std::string before = ".vm1.sav.";
  const std::size_t at = text.find(before);
  if (at == std::string::npos) return text;
  const std::string random = text.substr(at + before.size(), 6);
  const auto is_alphanumeric = [](unsigned char c) { return std::isalnum(c) != 0; };
  if (random.size() == 6 && std::ranges::all_of(random, is_alphanumeric)) text.replace(at + before.size(), 6, "XXXXXX");
  return text;
}

void WriteText(const NewFile& file, const std::string& text) {
  WriteAt(file.buffered(), std::as_bytes(std::span(text)), FileOffset{0});
}

std::string ErrorOfPublishing(NewFile& file) {
  try {
    file.Publish();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_F(NewFileTest, AppearsUnderItsNameOnlyWhenPublished) {
  NewFile file(Target(), Replace::kNo, CacheUse::kPageCache);
  WriteText(file, "new");
  ASSERT_EQ(Names().size(), 1U);
  EXPECT_EQ(WithoutRandomCharacters(*Names().begin()), ".vm1.sav.XXXXXX");
  EXPECT_EQ(file.buffered().name(), scratch_.Path(*Names().begin()));
  file.Publish();
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
  EXPECT_EQ(TargetText(), "new");
}

TEST_F(NewFileTest, DestroyedUnpublishedLeavesNothingBehindAndTheTargetAsItWas) {
  MakeTarget("old");
  {
    NewFile file(Target(), Replace::kYes, CacheUse::kPageCache);
    WriteText(file, "new");
    EXPECT_EQ(Names().size(), 2U);
  }
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
  EXPECT_EQ(TargetText(), "old");
}

TEST_F(NewFileTest, MovedOneIsUnlinkedOnce) {
  {
    NewFile file(Target(), Replace::kYes, CacheUse::kPageCache);
    NewFile moved(std::move(file));
    WriteText(moved, "new");
    moved.Publish();
  }
  EXPECT_EQ(TargetText(), "new");
}

TEST_F(NewFileTest, ForceReplacesTheTarget) {
  MakeTarget("old");
  NewFile file(Target(), Replace::kYes, CacheUse::kPageCache);
  WriteText(file, "new");
  file.Publish();
  EXPECT_EQ(TargetText(), "new");
  EXPECT_EQ(Names().size(), 1U);
}

TEST_F(NewFileTest, ExistingTargetIsRefusedWithoutForce) {
  MakeTarget("old");
  EXPECT_EQ(ErrorOfCreating(Target(), Replace::kNo),
            "cannot create " + Target() + ": it exists already (use --force to replace it)");
  EXPECT_EQ(TargetText(), "old");
}

TEST_F(NewFileTest, FileThatAppearsBeforePublishIsNotReplacedWithoutForce) {
  {
    NewFile file(Target(), Replace::kNo, CacheUse::kPageCache);
    MakeTarget("the other's");
    EXPECT_EQ(ErrorOfPublishing(file),
              "cannot create " + Target() + ": it exists already, since a moment ago (use --force to replace it)");
  }
  EXPECT_EQ(TargetText(), "the other's");
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
}

TEST_F(NewFileTest, IsReadableByTheOwnerAloneWhateverTheUmask) {
  for (const mode_t mask : {0U, 0777U}) {
    const mode_t before = ::umask(mask);
    NewFile file(Target(), Replace::kYes, CacheUse::kPageCache);
    ::umask(before);
    struct stat status {};
    ASSERT_EQ(::fstat(file.buffered().number(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
    file.Publish();
    ASSERT_EQ(::stat(Target().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
  }
}

TEST_F(NewFileTest, SymbolicLinkIsRefused) {
  std::ofstream(scratch_.Path("elsewhere")) << "precious";
  fs::create_symlink(scratch_.Path("elsewhere"), Target());
  EXPECT_EQ(ErrorOfCreating(Target()),
            "cannot create " + Target() + ": it is a symbolic link (name the file that it points to)");
  fs::remove(scratch_.Path("elsewhere"));
  EXPECT_NE(ErrorOfCreating(Target()), "") << "a dangling one";
}

TEST_F(NewFileTest, DirectoryIsRefused) {
  fs::create_directory(Target());
  const std::string advice = " (name a file in it)";
  EXPECT_EQ(ErrorOfCreating(Target()), "cannot create " + Target() + ": it is a directory" + advice);
  EXPECT_EQ(ErrorOfCreating(Target() + "/"), "cannot create " + Target() + "/: it is the name of a directory" + advice);
  EXPECT_EQ(ErrorOfCreating(".."), "cannot create ..: it is a directory" + advice);
}

TEST_F(NewFileTest, PipeIsRefused) {
  ASSERT_EQ(::mkfifo(Target().c_str(), 0600), 0);
  EXPECT_EQ(ErrorOfCreating(Target()), "cannot create " + Target() + ": it is a pipe (an image is a regular file)");
}

TEST_F(NewFileTest, SocketIsRefused) {
  const FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  // Bound by a short relative name: a socket's path is limited to 107 characters.
  const std::string said = InChild([&]() -> std::string {
    fs::current_path(scratch_.path());
    sockaddr_un address{AF_UNIX, "vm1.sav"};
    if (::bind(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return "cannot bind";
    return ErrorOfCreating("vm1.sav");
  });
  EXPECT_EQ(said, "cannot create vm1.sav: it is a socket (an image is a regular file)");
}

TEST_F(NewFileTest, DeviceIsRefused) {
  EXPECT_EQ(ErrorOfCreating("/dev/null"), "cannot create /dev/null: it is a device (an image is a regular file)");
}

TEST_F(NewFileTest, MissingDirectoryIsNamed) {
  EXPECT_EQ(ErrorOfCreating(scratch_.Path("missing/vm1.sav")), "cannot create " + scratch_.Path("missing/vm1.sav") +
                                                                   ": there is no directory " +
                                                                   scratch_.Path("missing") + " (create it first)");
}

TEST_F(NewFileTest, FileInThePlaceOfTheDirectoryIsNamed) {
  MakeTarget("old");
  EXPECT_EQ(ErrorOfCreating(Target() + "/x"), "cannot create " + Target() + "/x: " + Target() + " is not a directory");
}

TEST_F(NewFileTest, EmptyPathIsRefused) {
  EXPECT_EQ(ErrorOfCreating(""), "cannot create the image: its path is empty");
}

TEST_F(NewFileTest, UnwritableDirectoryIsNamed) {
  fs::create_directory(scratch_.Path("closed"));
  ASSERT_EQ(::chmod(scratch_.Path("closed").c_str(), 0555), 0);
  const std::string said = InChild([&]() -> std::string {
    // Nothing is closed to root; another user may not even get here by the full path.
    fs::current_path(scratch_.path());
    fs::permissions(".", fs::perms::group_exec | fs::perms::others_exec, fs::perm_options::add);
    if (::geteuid() == 0 && ::seteuid(65534) != 0) return kNotPermitted;
    NewFile file("closed/vm1.sav", Replace::kNo, CacheUse::kPageCache);
    return "it worked";
  });
  if (said == kNotPermitted) GTEST_SKIP() << "cannot become another user";
  EXPECT_EQ(said, "cannot create closed/vm1.sav: the directory closed is not writable for this user");
}

TEST_F(NewFileTest, RelativePathWithoutDirectoryWorks) {
  const std::string said = InChild([&]() -> std::string {
    fs::current_path(scratch_.path());
    NewFile file("vm1.sav", Replace::kNo, CacheUse::kPageCache);
    file.Publish();
    return "published " + file.path();
  });
  EXPECT_EQ(said, "published vm1.sav");
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
}

TEST_F(NewFileTest, LongestNameWorksAndIsCutBetweenCharacters) {
  std::string name = "x";
  while (name.size() < 255) name += "ä";
  ASSERT_EQ(name.size(), 255U);
  NewFile file(scratch_.Path(name), Replace::kNo, CacheUse::kPageCache);
  ASSERT_EQ(Names().size(), 1U);
  // 255 - 8 = 247 characters remain for the name, an odd number as it must be after the "x".
  EXPECT_EQ(Names().begin()->size(), 255U);
  file.Publish();
  EXPECT_EQ(Names(), std::set<std::string>{name});

  name = "xx" + name.substr(1, 252);
  NewFile odd(scratch_.Path(name), Replace::kNo, CacheUse::kPageCache);
  EXPECT_EQ(fs::path(odd.buffered().name()).filename().string().size(), 254U);
}

TEST_F(NewFileTest, TooLongNameIsAnError) {
  EXPECT_NE(ErrorOfCreating(scratch_.Path(std::string(256, 'x'))).find("File name too long"), std::string::npos);
}

TEST_F(NewFileTest, DirectoryThatIsRenamedMeanwhileStillGetsTheFile) {
  fs::create_directory(scratch_.Path("before"));
  NewFile file(scratch_.Path("before/vm1.sav"), Replace::kNo, CacheUse::kPageCache);
  fs::rename(scratch_.Path("before"), scratch_.Path("after"));
  fs::create_directory(scratch_.Path("before"));
  file.Publish();
  EXPECT_TRUE(fs::exists(scratch_.Path("after/vm1.sav")));
  EXPECT_TRUE(fs::is_empty(scratch_.Path("before")));
}

TEST_F(NewFileTest, BypassGivesASecondDescriptorOfTheSameFile) {
  const AlignedBuffer bytes = PatternBuffer(16 * kPageBytes, 1);
  std::optional<NewFile> file;
  try {
    file.emplace(Target(), Replace::kNo, CacheUse::kBypass);
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  EXPECT_TRUE(file->bypasses_cache());
  EXPECT_NE(file->pages().number(), file->buffered().number());
  EXPECT_NE(::fcntl(file->pages().number(), F_GETFL) & O_DIRECT, 0);
  EXPECT_GE(file->alignment().file_offset, 1U);
  WriteAt(file->pages(), bytes.bytes(), FileOffset{0});
  file->Sync();
  AlignedBuffer back(bytes.size());
  ReadAt(file->buffered(), back.bytes(), FileOffset{0});
  EXPECT_TRUE(std::ranges::equal(bytes.bytes(), back.bytes()));
  file->Publish();
  EXPECT_EQ(fs::file_size(Target()), bytes.size());
}

TEST_F(NewFileTest, PageCacheUsesOneDescriptorWithoutAlignment) {
  const NewFile file(Target(), Replace::kNo, CacheUse::kPageCache);
  EXPECT_FALSE(file.bypasses_cache());
  EXPECT_EQ(file.pages().number(), file.buffered().number());
  EXPECT_EQ(file.alignment().memory, 1U);
  EXPECT_EQ(file.alignment().file_offset, 1U);
}

// ramfs is one of the few file systems that still refuse O_DIRECT.
TEST_F(NewFileTest, FileSystemWithoutDirectIoIsNamedAndNothingLeftBehind) {
  const std::string said = InChild([&]() -> std::string {
    if (!MountForMyself("ramfs", scratch_.path().string(), "")) return kNotPermitted;
    try {
      NewFile file(Target(), Replace::kNo, CacheUse::kBypass);
      return "it worked";
    } catch (const Error& error) {
      return WithoutRandomCharacters(error.what()) + (Names().empty() ? "" : " and a file left behind");
    }
  });
  if (said == kNotPermitted) GTEST_SKIP() << "this user may not mount a file system";
  EXPECT_EQ(said, "cannot bypass the page cache for " + scratch_.Path(".vm1.sav.XXXXXX") +
                      ": the file system has no direct I/O (leave --bypass-cache out)");
}

TEST_F(NewFileTest, FreeSpaceIsWhatTheFileSystemTells) {
  const NewFile file(Target(), Replace::kNo, CacheUse::kPageCache);
  const fs::space_info space = fs::space(scratch_.path());
  EXPECT_GT(file.FreeSpace().value(), 0U);
  EXPECT_LE(file.FreeSpace().value(), space.capacity);
}

// Publishing with system calls that fail.
class NewFilePublishTest : public NewFileTest {
 protected:
  struct Fault {
    long system_call;
    int error_number;
  };

  std::string Publish(Replace replace, const std::vector<Fault>& faults, bool target_appears = false) const {
    return InChild([&]() -> std::string {
      NewFile file(Target(), replace, CacheUse::kPageCache);
      WriteText(file, "new");
      if (target_appears) MakeTarget("the other's");
      for (const Fault& fault : faults) {
        if (!FailSystemCall(fault.system_call, fault.error_number)) return kNotPermitted;
      }
      const std::string said = ErrorOfPublishing(file);
      return said.empty() ? "published" : said;
    });
  }
};

TEST_F(NewFilePublishTest, LinksWhereTheFileSystemHasNoRenameWithoutReplacing) {
  const std::string said = Publish(Replace::kNo, {{SYS_renameat2, EINVAL}, {SYS_renameat, EIO}});
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "published");
  EXPECT_EQ(TargetText(), "new");
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
}

TEST_F(NewFilePublishTest, LinkDoesNotReplaceWhatAppearedMeanwhile) {
  const std::string said = Publish(Replace::kNo, {{SYS_renameat2, EINVAL}}, true);
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_NE(said.find("it exists already, since a moment ago"), std::string::npos) << said;
  EXPECT_EQ(TargetText(), "the other's");
}

TEST_F(NewFilePublishTest, LooksFirstWhereThereAreNoLinksEither) {
  const std::vector<Fault> faults{{SYS_renameat2, EINVAL}, {SYS_linkat, EPERM}};
  const std::string said = Publish(Replace::kNo, faults);
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "published");
  EXPECT_EQ(TargetText(), "new");
  EXPECT_EQ(Publish(Replace::kYes, faults), "published");
}

TEST_F(NewFilePublishTest, LookingFirstFindsWhatAppearedMeanwhile) {
  const std::string said = Publish(Replace::kNo, {{SYS_renameat2, EINVAL}, {SYS_linkat, EPERM}}, true);
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_NE(said.find("it exists already, since a moment ago"), std::string::npos) << said;
  EXPECT_EQ(TargetText(), "the other's");
}

TEST_F(NewFilePublishTest, FailedSyncPublishesNothing) {
  MakeTarget("old");
  const std::string said = Publish(Replace::kYes, {{SYS_fdatasync, EIO}});
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_NE(said.find("cannot sync"), std::string::npos) << said;
  EXPECT_EQ(TargetText(), "old");
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
}

// A network file system reports a late write error there.
TEST_F(NewFilePublishTest, FailedClosePublishesNothing) {
  MakeTarget("old");
  const std::string said = Publish(Replace::kYes, {{SYS_close, EIO}});
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_NE(said.find("cannot close"), std::string::npos) << said;
  EXPECT_EQ(TargetText(), "old");
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
}

TEST_F(NewFilePublishTest, FailedSyncOfTheDirectorySaysThatTheFileIsThere) {
  const std::string said = Publish(Replace::kNo, {{SYS_fsync, EIO}});
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "cannot sync the directory " + scratch_.path().string() + ": Input/output error (" + Target() +
                      " is complete, but a power failure could still undo its name)");
  EXPECT_EQ(TargetText(), "new");
  EXPECT_EQ(Names(), std::set<std::string>{"vm1.sav"});
}

TEST_F(NewFilePublishTest, DirectoryThatCannotBeSyncedAtAllIsNoError) {
  const std::string said = Publish(Replace::kNo, {{SYS_fsync, EINVAL}});
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "published");
}

}  // namespace
}  // namespace vmsave
