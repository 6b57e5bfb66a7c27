#include "qemu/guest_ram.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "tests/qemu/running_qemu.h"

namespace vmsave {
namespace {

using Access = MemoryMapping::Access;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::string Name(const char* variable) {
  return std::string(variable).substr(std::strlen("VMSAVE_QEMU_"));
}

// The message of the Error that `action` throws, or "" if it throws none.
std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A guest that has not run yet (-S), so nothing but the test changes its RAM.
class Guest {
 public:
  Guest(const std::string& executable, std::vector<std::string> arguments)
      : qemu_(executable, WithStop(std::move(arguments))), qmp_(qemu_.qmp_socket_path(), never_, kTestPatience) {}

  QmpClient& qmp() { return qmp_; }
  const RunningQemu& qemu() const { return qemu_; }

  std::map<std::string, MappedBackend> Map(Access access = Access::kReadWrite) {
    std::map<std::string, MappedBackend> mapped;
    for (MappedBackend& backend : MapBackends(qmp_, QueryMemoryBackends(qmp_), access)) {
      std::string id = backend.backend.id;
      mapped.emplace(std::move(id), std::move(backend));
    }
    return mapped;
  }

  // Eight bytes of guest-physical memory, as QEMU sees them.
  std::uint64_t Peek(std::uint64_t address) {
    const std::string text = qmp_.ExecuteHmp(fmt::format("xp /1gx {:#x}", address));
    const std::size_t colon = text.find(": 0x");
    return colon == std::string::npos ? 0 : std::stoull(text.substr(colon + 2), nullptr, 16);
  }

  // Proves that byte `offset` of the mapping is the guest's memory at `address`.
  void ExpectSameMemory(MappedBackend& mapped, std::uint64_t offset, std::uint64_t address) {
    ASSERT_EQ(mapped.memory.bytes().size(), mapped.backend.size.value());
    const std::uint64_t marker = 0x5a5a000000000001U + ++markers_ * 0x100000000U;
    std::memcpy(&mapped.memory.bytes()[offset], &marker, sizeof(marker));
    EXPECT_EQ(Peek(address), marker) << mapped.backend.id << " offset " << offset;
    std::uint64_t in_file = 0;
    ReadAt(mapped.file, std::as_writable_bytes(std::span(&in_file, 1)), mapped.start_in_file + ByteCount{offset});
    EXPECT_EQ(in_file, marker);
  }

 private:
  static std::vector<std::string> WithStop(std::vector<std::string> arguments) {
    arguments.emplace_back("-S");
    return arguments;
  }

  Interrupt never_;
  RunningQemu qemu_;
  QmpClient qmp_;
  std::uint64_t markers_ = 0;
};

class GuestRamTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::optional<std::string> executable = QemuFromEnvironment(GetParam());
    if (!executable) GTEST_SKIP() << GetParam() << " names no QEMU";
    executable_ = *executable;
  }

  static std::vector<std::string> OneBackend(const std::string& backend, const std::string& machine = "pc",
                                             const std::string& size = "64M") {
    return {"-m",       size,
            "-object",  backend + ",id=pc.ram,share=on,size=" + size,
            "-machine", machine + ",memory-backend=pc.ram"};
  }

  static std::vector<std::string> TwoNodes(const std::string& first, const std::string& second) {
    return {"-m",      "128M",
            "-object", first + ",id=m0,share=on,size=64M",
            "-object", second + ",id=m1,share=on,size=64M",
            "-numa",   "node,memdev=m0",
            "-numa",   "node,memdev=m1"};
  }

  void ExpectOneBackendIsMapped(const std::vector<std::string>& arguments) {
    Guest guest(executable_, arguments);
    EXPECT_EQ(WhyNotShared(QueryMemoryBackends(guest.qmp())), "");
    auto mapped = guest.Map();
    ASSERT_EQ(mapped.size(), 1U);
    MappedBackend& ram = mapped.at("pc.ram");
    EXPECT_EQ(ram.block_name, "pc.ram");
    guest.ExpectSameMemory(ram, 0x1000, 0x1000);
    guest.ExpectSameMemory(ram, 64 * kMiB - 8, 64 * kMiB - 8);
  }

  void ExpectTwoNodesAreToldApart(const std::vector<std::string>& arguments) {
    Guest guest(executable_, arguments);
    auto mapped = guest.Map();
    ASSERT_EQ(mapped.size(), 2U);
    guest.ExpectSameMemory(mapped.at("m0"), 32 * kMiB, 32 * kMiB);
    guest.ExpectSameMemory(mapped.at("m1"), 32 * kMiB, 96 * kMiB);
    EXPECT_NE(guest.Peek(32 * kMiB), guest.Peek(96 * kMiB));
  }

  std::string executable_;
  ScratchDirectory directory_;
};

TEST_P(GuestRamTest, MapsAFile) {
  ExpectOneBackendIsMapped(OneBackend("memory-backend-file,mem-path=" + directory_.Path("ram")));
}

TEST_P(GuestRamTest, MapsAMemfd) {
  ExpectOneBackendIsMapped(OneBackend("memory-backend-memfd"));
}

TEST_P(GuestRamTest, MapsAFileInSharedMemory) {
  const ScratchDirectory shared_memory("/dev/shm");
  ExpectOneBackendIsMapped(OneBackend("memory-backend-file,mem-path=" + shared_memory.Path("ram")));
}

TEST_P(GuestRamTest, MapsTheUnnamedFileThatQemuMakesInADirectory) {
  ExpectOneBackendIsMapped(OneBackend("memory-backend-file,mem-path=" + directory_.path().native()));
}

TEST_P(GuestRamTest, MapsAGuestThatWaitsForItsIncomingState) {
  std::vector<std::string> arguments = OneBackend("memory-backend-memfd");
  arguments.insert(arguments.end(), {"-incoming", "defer"});
  ExpectOneBackendIsMapped(arguments);
}

TEST_P(GuestRamTest, TellsTwoMemfdsOfEqualSizeApart) {
  ExpectTwoNodesAreToldApart(TwoNodes("memory-backend-memfd", "memory-backend-memfd"));
}

TEST_P(GuestRamTest, TellsTwoFilesOfEqualSizeApart) {
  ExpectTwoNodesAreToldApart(TwoNodes("memory-backend-file,mem-path=" + directory_.Path("a"),
                                      "memory-backend-file,mem-path=" + directory_.Path("b")));
}

TEST_P(GuestRamTest, TellsTwoUnnamedFilesInOneDirectoryApart) {
  const std::string backend = "memory-backend-file,mem-path=" + directory_.path().native();
  ExpectTwoNodesAreToldApart(TwoNodes(backend, backend));
}

TEST_P(GuestRamTest, MapsRamThatTheGuestSeesInTwoParts) {
  Guest guest(executable_, OneBackend("memory-backend-memfd", "q35", "4G"));
  auto mapped = guest.Map();
  guest.ExpectSameMemory(mapped.at("pc.ram"), 1024 * kMiB, 1024 * kMiB);
  guest.ExpectSameMemory(mapped.at("pc.ram"), 3072 * kMiB, (4096 + 1024) * kMiB);
}

TEST_P(GuestRamTest, MapsAPluggedMemoryModule) {
  std::vector<std::string> arguments = OneBackend("memory-backend-memfd");
  arguments[1] = "64M,slots=1,maxmem=1G";
  arguments.insert(arguments.end(), {"-object", "memory-backend-memfd,id=module,share=on,size=128M", "-device",
                                     "pc-dimm,memdev=module"});
  Guest guest(executable_, arguments);
  auto mapped = guest.Map();
  guest.ExpectSameMemory(mapped.at("module"), 16 * kMiB, (4096 + 16) * kMiB);
}

// Machine types of QEMU 3.1 and before name a RAM block by the path of its backend.
TEST_P(GuestRamTest, FindsBackendsOfAnOldMachineType) {
  Guest guest(executable_, OneBackend("memory-backend-memfd", "pc-q35-3.1"));
  auto mapped = guest.Map();
  EXPECT_EQ(mapped.at("pc.ram").block_name, "/objects/pc.ram");
  guest.ExpectSameMemory(mapped.at("pc.ram"), 32 * kMiB, 32 * kMiB);
}

// The file's name leads to another file by now: what QEMU holds counts.
TEST_P(GuestRamTest, MapsTheFileThatQemuHoldsWhereItsNameWasTakenOver) {
  const std::string path = directory_.Path("ram");
  Guest guest(executable_, OneBackend("memory-backend-file,mem-path=" + path));
  std::filesystem::remove(path);
  std::ofstream(path) << "somebody else's";
  std::filesystem::resize_file(path, 64 * kMiB);
  auto mapped = guest.Map();
  guest.ExpectSameMemory(mapped.at("pc.ram"), 32 * kMiB, 32 * kMiB);
}

// Of QEMU >= 8.1 only.
class GuestRamInPartOfAFileTest : public GuestRamTest {};

TEST_P(GuestRamInPartOfAFileTest, MapsThatPart) {
  const std::string path = directory_.Path("ram");
  std::ofstream(path) << "";
  std::filesystem::resize_file(path, 80 * kMiB);
  Guest guest(executable_, OneBackend("memory-backend-file,offset=16M,mem-path=" + path));
  auto mapped = guest.Map();
  EXPECT_EQ(mapped.at("pc.ram").start_in_file.value(), 16 * kMiB);
  guest.ExpectSameMemory(mapped.at("pc.ram"), 32 * kMiB, 32 * kMiB);
}

TEST_P(GuestRamTest, MapsForReadingOnly) {
  Guest guest(executable_, OneBackend("memory-backend-memfd"));
  auto for_writing = guest.Map(Access::kReadWrite);
  const auto for_reading = guest.Map(Access::kRead);
  for_writing.at("pc.ram").memory.bytes()[5] = std::byte{42};
  EXPECT_EQ(for_reading.at("pc.ram").memory.bytes()[5], std::byte{42});
  EXPECT_EQ(::fcntl(for_reading.at("pc.ram").file.number(), F_GETFL) & O_ACCMODE, O_RDONLY);
}

TEST_P(GuestRamTest, RefusesToRestoreWhereAnotherGuestHasOneOfItsBackends) {
  const std::string file = "memory-backend-file,mem-path=" + directory_.Path("ram");
  Guest guest(executable_, TwoNodes("memory-backend-memfd", file));
  const Guest other(executable_, OneBackend(file));
  const std::string message = MessageOf([&] { RefuseMemoryInUse(guest.qmp(), QueryMemoryBackends(guest.qmp())); });
  EXPECT_NE(message.find("RAM m1 of the guest"), std::string::npos) << message;
  EXPECT_NE(message.find(fmt::format("process {} uses", other.qemu().pid())), std::string::npos) << message;
  EXPECT_EQ(guest.Map(Access::kRead).size(), 2U);
}

TEST_P(GuestRamTest, RefusesAFileThatIsShorterThanTheRam) {
  const std::string path = directory_.Path("ram");
  Guest guest(executable_, OneBackend("memory-backend-file,mem-path=" + path));
  std::filesystem::resize_file(path, 63 * kMiB);
  EXPECT_NE(MessageOf([&] { guest.Map(); }).find("the RAM in it ends at byte"), std::string::npos);
}

TEST_P(GuestRamTest, RefusesABackendThatTheGuestDoesNotUse) {
  std::vector<std::string> arguments = OneBackend("memory-backend-memfd");
  arguments.insert(arguments.end(), {"-object", "memory-backend-memfd,id=idle,share=on,size=64M"});
  Guest guest(executable_, arguments);
  const std::string message = MessageOf([&] { guest.Map(); });
  EXPECT_NE(message.find("idle"), std::string::npos) << message;
  EXPECT_NE(message.find("no guest address shows it"), std::string::npos) << message;
}

TEST_P(GuestRamTest, TellsThatPlainRamIsPrivate) {
  Guest guest(executable_, {"-m", "64M"});
  const std::string why = WhyNotShared(QueryMemoryBackends(guest.qmp()));
  EXPECT_NE(why.find("pc.ram is private"), std::string::npos) << why;
}

TEST_P(GuestRamTest, TellsThatAPrivatelyMappedFileIsPrivate) {
  Guest guest(executable_, {"-m", "64M", "-object",
                            "memory-backend-file,id=m0,size=64M,share=off,mem-path=" + directory_.Path("ram"),
                            "-machine", "pc,memory-backend=m0"});
  const std::string why = WhyNotShared(QueryMemoryBackends(guest.qmp()));
  EXPECT_NE(why.find("m0 is private"), std::string::npos) << why;
  EXPECT_NE(MessageOf([&] { guest.Map(); }).find("share=on"), std::string::npos);
}

// Runs `action` in a child without root's rights, which may not look into QEMU's process; returns the Error's message.
std::string MessageWithoutPrivileges(const std::string& report_path, const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    const FileDescriptor report = OpenFile(report_path, O_CREAT | O_WRONLY, 0600);
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
    const std::string message = MessageOf(action);
    WriteAt(report, std::as_bytes(std::span(message)), FileOffset{0});
    ::_exit(0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  std::ifstream report(report_path);
  return {std::istreambuf_iterator<char>(report), std::istreambuf_iterator<char>()};
}

class GuestRamOfAnotherUserTest : public GuestRamTest {
 protected:
  void SetUp() override {
    GuestRamTest::SetUp();
    if (::geteuid() != 0) GTEST_SKIP() << "only root can make a guest of another user";
    std::filesystem::permissions(directory_.path(), std::filesystem::perms(0755));
  }

  // `use` gets the guest's RAM, mapped by another user than QEMU's.
  std::string MapAsAnotherUser(Guest& guest, const std::function<void(MappedBackend&)>& use) {
    // The client was connected with root's rights, as a socket that its group may use would allow.
    return MessageWithoutPrivileges(directory_.Path("report"), [&] { use(guest.Map().at("pc.ram")); });
  }
};

// What lies at that path here need not be what QEMU mapped.
TEST_P(GuestRamOfAnotherUserTest, RefusesAFileThatIsNotProvedToBeTheGuests) {
  const std::string path = directory_.Path("ram");
  Guest guest(executable_, OneBackend("memory-backend-file,mem-path=" + path));
  std::filesystem::permissions(path, std::filesystem::perms(0666));
  const std::string message = MapAsAnotherUser(guest, [](MappedBackend&) {});
  EXPECT_NE(message.find("run as the user of QEMU, or as root"), std::string::npos) << message;
}

TEST_P(GuestRamOfAnotherUserTest, TellsWhoCouldMapAMemfd) {
  Guest guest(executable_, OneBackend("memory-backend-memfd"));
  const std::string message = MapAsAnotherUser(guest, [](MappedBackend&) {});
  EXPECT_NE(message.find("run as the user of QEMU, or as root"), std::string::npos) << message;
}

TEST(WhyNotSharedTest, NoBackendAtAllIsPrivateRam) {
  EXPECT_NE(WhyNotShared({}).find("private"), std::string::npos);
}

TEST(WhyNotSharedTest, NamesTheBackendThatIsPrivate) {
  const std::vector<MemoryBackend> backends{{"good", "memory-backend-memfd", ByteCount{4096}, true, ""},
                                            {"bad", "memory-backend-ram", ByteCount{4096}, true, ""}};
  EXPECT_NE(WhyNotShared(backends).find("bad"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Qemu, GuestRamTest, testing::Values("VMSAVE_QEMU_OLD", "VMSAVE_QEMU_NEW"),
                         [](const auto& test) { return Name(test.param); });
INSTANTIATE_TEST_SUITE_P(Qemu, GuestRamInPartOfAFileTest, testing::Values("VMSAVE_QEMU_NEW"),
                         [](const auto& test) { return Name(test.param); });
INSTANTIATE_TEST_SUITE_P(Qemu, GuestRamOfAnotherUserTest, testing::Values("VMSAVE_QEMU_OLD", "VMSAVE_QEMU_NEW"),
                         [](const auto& test) { return Name(test.param); });

}  // namespace
}  // namespace vmsave
