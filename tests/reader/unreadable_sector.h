// A sector that the disk cannot read.
#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "format/units.h"

namespace vmsave {

// From now on, in this process and for good, a read from there fails with EIO. `system_call`: SYS_pread64, or
// SYS_preadv as the sync engine uses it. False where the kernel does not let us (no seccomp).
inline bool FailReadsAt(FileOffset offset, long system_call) {
  const auto call = static_cast<__u32>(system_call);
  const auto low = static_cast<__u32>(offset.value());
  std::array<sock_filter, 6> program{
      sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, 3, call},
      sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, args) + 3 * sizeof(__u64)},
      sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, low},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EIO},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace vmsave
