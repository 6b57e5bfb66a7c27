// A host that is older than this one: its kernel lacks system calls, its QEMU is the old one, and it has no libraries
// for vmrestore, which is linked statically.
#include <sys/syscall.h>

#include <ostream>

#include "tests/e2e/end_to_end_test.h"
#include "tests/e2e/static_vmrestore.h"

namespace vmsave {
namespace {

constexpr int kCannotBeOlder = 77;  // of without_syscalls

struct Kernel {
  std::string name;
  long first_missing;  // the system call that came next
};

const Kernel kKernels[] = {{"Linux5_0", SYS_pidfd_send_signal},  // the next were io_uring's
                           {"Linux4_10", SYS_statx},
                           {"Linux3_2", SYS_kcmp}};

struct Host {
  Kernel kernel;
  bool static_program;
  bool bypass_cache;
};

std::ostream& operator<<(std::ostream& out, const Host& host) {
  return out << host.kernel.name << (host.static_program ? "Static" : "") << (host.bypass_cache ? "Bypass" : "");
}

class OlderHostTest : public EndToEndTest, public testing::WithParamInterface<Host> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    if (GetParam().static_program && kStaticVmrestore == nullptr) GTEST_SKIP() << kNoStaticPrograms;
    if (RunToEnd(OnOlderKernel({"true"})).status == kCannotBeOlder) GTEST_SKIP() << "no seccomp";
  }

  static std::vector<std::string> OnOlderKernel(const std::vector<std::string>& command) {
    std::vector<std::string> whole{WITHOUT_SYSCALLS_PROGRAM, std::to_string(GetParam().kernel.first_missing)};
    whole.insert(whole.end(), command.begin(), command.end());
    return whole;
  }

  Outcome RestoreThere(const Guest& guest) const {
    std::vector<std::string> options{"--detach"};
    if (GetParam().bypass_cache) options.emplace_back("--bypass-cache");
    options.push_back(ImagePath());
    std::vector<std::string> command = VmrestoreCommand(guest, options);
    if (GetParam().static_program) command[0] = kStaticVmrestore;
    return RunToEnd(OnOlderKernel(command));
  }
};

std::vector<Host> Hosts() {
  std::vector<Host> hosts;
  for (const Kernel& kernel : kKernels) {
    for (const bool bypass_cache : {false, true}) hosts.push_back({kernel, true, bypass_cache});
  }
  hosts.push_back({kKernels[0], false, true});
  return hosts;
}

INSTANTIATE_TEST_SUITE_P(Host, OlderHostTest, testing::ValuesIn(Hosts()), testing::PrintToStringParamName());

std::size_t Count(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST_P(OlderHostTest, GuestOfVersion3GoesOnThere) {
  Guest saved(files_, "saved", {});
  GuestShape shape;
  shape.qemu = WhichQemu::kOld;
  shape.ram = Ram::kPrivate;
  Guest restored(files_, "restored", shape);
  restored.PrintTo(saved);
  saved.Boot();
  ASSERT_TRUE(Succeeded(Save(saved, {"--image-version", "3"})));
  WaitUntil("the end of the saved QEMU", [&] { return saved.Processes().empty(); });

  const Outcome restore = RestoreThere(restored);

  ASSERT_TRUE(Succeeded(restore));
  EXPECT_EQ(Count(restore.err, "using sync I/O: the kernel has no io_uring (Function not implemented)"), 1U)
      << restore.err;
  const bool alignment_is_unknown = GetParam().bypass_cache && GetParam().kernel.first_missing <= SYS_statx;
  if (alignment_is_unknown) {
    EXPECT_EQ(Count(restore.err, "does not tell the alignment of direct I/O; 4096 bytes are assumed"), 1U)
        << restore.err;
  }
  EXPECT_TRUE(GoesOn(restored));
}

}  // namespace
}  // namespace vmsave
