#include "tests/io/child_process.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <exception>

#include "io/file_descriptor.h"

namespace vmsave {
namespace {

[[noreturn]] void RunChild(int report, const std::function<std::string()>& body) {
  std::string said;
  try {
    said = body();
  } catch (const std::exception& error) {
    said = error.what();
  }
  const ssize_t written = ::write(report, said.data(), said.size());
  std::_Exit(written == static_cast<ssize_t>(said.size()) ? 0 : 1);
}

bool WriteText(const std::string& path, const std::string& text) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC), path);
  return file.valid() && ::write(file.number(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Without privileges, mounting takes a user namespace in which this user is root.
bool EnterMountNamespace() {
  const std::string uid_map = "0 " + std::to_string(::geteuid()) + " 1";
  const std::string gid_map = "0 " + std::to_string(::getegid()) + " 1";
  if (::unshare(CLONE_NEWNS) == 0) return true;
  // The kernel takes the map of groups only from one who has given up setgroups(2).
  return ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && WriteText("/proc/self/setgroups", "deny") &&
         WriteText("/proc/self/uid_map", uid_map) && WriteText("/proc/self/gid_map", gid_map);
}

}  // namespace

std::string InChild(const std::function<std::string()>& body) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::FromErrno("cannot make a pipe", errno);
  const FileDescriptor from_child(ends[0], "pipe");
  FileDescriptor to_parent(ends[1], "pipe");
  const pid_t child = ::fork();
  if (child < 0) throw Error::FromErrno("cannot fork", errno);
  if (child == 0) RunChild(to_parent.number(), body);
  to_parent.Close();

  std::string said;
  std::array<char, 512> piece{};
  for (;;) {
    const ssize_t done = ::read(from_child.number(), piece.data(), piece.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) break;
    said.append(piece.data(), static_cast<std::size_t>(done));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) return "(died: " + std::to_string(status) + ")";
  return said;
}

bool FailSystemCall(long system_call, int error_number) {
  std::array<sock_filter, 4> program{
      sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<__u32>(system_call)},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<__u32>(error_number)},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

bool MountForMyself(const std::string& type, const std::string& directory, const std::string& options) {
  return EnterMountNamespace() && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("test", directory.c_str(), type.c_str(), 0, options.c_str()) == 0;
}

}  // namespace vmsave
