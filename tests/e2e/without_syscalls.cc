// Runs a program, and all that it starts, as on an older kernel: without_syscalls FIRST COMMAND...
// The kernel numbers its system calls as they come, so an older one is one that answers ENOSYS from some number on.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <cstring>

namespace {

constexpr int kCannot = 77;

bool FailSystemCallsFrom(__u32 first) {
  std::array<sock_filter, 4> program{sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
                                     sock_filter{BPF_JMP | BPF_JGE | BPF_K, 0, 1, first},
                                     sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS},
                                     sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  __u32 first = 0;
  if (argc < 3 || std::from_chars(argv[1], argv[1] + std::strlen(argv[1]), first).ec != std::errc()) return kCannot;
  if (!FailSystemCallsFrom(first)) return kCannot;
  ::execvp(argv[2], argv + 2);
  std::perror(argv[2]);
  return kCannot;
}
