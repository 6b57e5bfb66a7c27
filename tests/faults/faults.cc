// One fault at one system call of the program that this is loaded into (LD_PRELOAD).
//
// VMSAVE_FAULT=WHAT:N acts at the Nth call (from 1) of those that WHAT is about:
//   kill     before a step that others can see: a message (sendmsg), a file made, renamed, linked, removed or synced
//   killrename  the same, where a file is renamed: 1 is before, 2 is after
//   stoprename  the same, but it is stopped (SIGSTOP), and goes on when somebody lets it
//   stopsync  the same, before a file is synced
//   killguard  as kill, but what is killed is the process that was forked last
//   killboth the same, and the program as well
//   eio, enospc  a write fails
//   short    a write takes one byte less than it was given, as does each after it
//   slow     each write takes N milliseconds
//   eiosync  a sync fails
//   eioclose a close fails, of a file that was written
//   eioread  a read at an offset fails
//   slowread each of these takes N milliseconds
//   lostlink as on NFS, which has no renameat2(2): a link is made, but said to exist already
//   badunlink the same, but a name cannot be removed
// A process that the program forks is left in peace.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace {

pid_t program = -1;
pid_t child = -1;
std::string_view fault;
long at = 0;
std::atomic<long> calls = 0;

__attribute__((constructor)) void Read() {
  const char* text = getenv("VMSAVE_FAULT");
  const char* colon = text == nullptr ? nullptr : strchr(text, ':');
  if (colon == nullptr) return;
  fault = std::string_view(text, static_cast<std::size_t>(colon - text));
  at = atol(colon + 1);
  program = getpid();
}

template <class Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool IsNow(std::string_view what) {
  return fault == what && getpid() == program && ++calls == at;
}

void Step() {
  if (IsNow("kill")) kill(program, SIGKILL);
  if (IsNow("killguard") && child > 0) kill(child, SIGKILL);
  if (IsNow("killboth")) {
    if (child > 0) kill(child, SIGKILL);
    kill(program, SIGKILL);
  }
}

void RenameStep() {
  Step();
  if (IsNow("killrename")) kill(program, SIGKILL);
  if (IsNow("stoprename")) kill(program, SIGSTOP);
}

bool IsRegular(int file) {
  struct stat status {};
  return fstat(file, &status) == 0 && S_ISREG(status.st_mode);
}

// 0, or the errno of the fault that comes now.
int WriteFault() {
  if (fault == "slow" && getpid() == program) usleep(static_cast<useconds_t>(at * 1000));
  if (IsNow("eio")) return EIO;
  if (IsNow("enospc")) return ENOSPC;
  return 0;
}

// Whether it fails now.
bool ReadFault() {
  if (fault == "slowread" && getpid() == program) usleep(static_cast<useconds_t>(at * 1000));
  if (!IsNow("eioread")) return false;
  errno = EIO;
  return true;
}

bool IsOnNfs() {
  return (fault == "lostlink" || fault == "badunlink") && getpid() == program;
}

bool IsShortFromNowOn() {
  return fault == "short" && getpid() == program && ++calls >= at;
}

}  // namespace

extern "C" {

pid_t fork() {
  const pid_t forked = Next<pid_t (*)()>("fork")();
  if (forked > 0) child = forked;
  return forked;
}

ssize_t sendmsg(int socket, const msghdr* message, int flags) {
  Step();
  return Next<ssize_t (*)(int, const msghdr*, int)>("sendmsg")(socket, message, flags);
}

int openat(int directory, const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
    Step();
  }
  return Next<int (*)(int, const char*, int, mode_t)>("openat")(directory, path, flags, mode);
}

int renameat2(int from_directory, const char* from, int to_directory, const char* to, unsigned flags) {
  if (IsOnNfs()) {
    errno = EINVAL;
    return -1;
  }
  RenameStep();
  const auto next = Next<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
  const int result = next(from_directory, from, to_directory, to, flags);
  RenameStep();
  return result;
}

int renameat(int from_directory, const char* from, int to_directory, const char* to) {
  RenameStep();
  const int result =
      Next<int (*)(int, const char*, int, const char*)>("renameat")(from_directory, from, to_directory, to);
  RenameStep();
  return result;
}

int linkat(int from_directory, const char* from, int to_directory, const char* to, int flags) {
  Step();
  const auto next = Next<int (*)(int, const char*, int, const char*, int)>("linkat");
  const int result = next(from_directory, from, to_directory, to, flags);
  if (result != 0 || !IsNow("lostlink")) return result;
  errno = EEXIST;
  return -1;
}

int unlinkat(int directory, const char* path, int flags) {
  Step();
  if (IsNow("badunlink")) {
    errno = EIO;
    return -1;
  }
  return Next<int (*)(int, const char*, int)>("unlinkat")(directory, path, flags);
}

int fsync(int file) {
  Step();
  if (IsNow("eiosync")) {
    errno = EIO;
    return -1;
  }
  return Next<int (*)(int)>("fsync")(file);
}

int fdatasync(int file) {
  Step();
  if (IsNow("stopsync")) kill(program, SIGSTOP);
  if (IsNow("eiosync")) {
    errno = EIO;
    return -1;
  }
  return Next<int (*)(int)>("fdatasync")(file);
}

int close(int file) {
  const auto next = Next<int (*)(int)>("close");
  if (fault != "eioclose" || !IsRegular(file) || (fcntl(file, F_GETFL) & O_ACCMODE) == O_RDONLY || !IsNow("eioclose")) {
    return next(file);
  }
  next(file);
  errno = EIO;
  return -1;
}

ssize_t pwrite(int file, const void* bytes, size_t count, off_t offset) {
  const auto next = Next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  if (const int error = WriteFault(); error != 0) {
    errno = error;
    return -1;
  }
  return next(file, bytes, count > 1 && IsShortFromNowOn() ? count - 1 : count, offset);
}

ssize_t pwrite64(int file, const void* bytes, size_t count, off_t offset) {
  return pwrite(file, bytes, count, offset);
}

ssize_t pwritev(int file, const iovec* parts, int count, off_t offset) {
  const auto next = Next<ssize_t (*)(int, const iovec*, int, off_t)>("pwritev");
  if (const int error = WriteFault(); error != 0) {
    errno = error;
    return -1;
  }
  return next(file, parts, count > 1 && IsShortFromNowOn() ? count - 1 : count, offset);
}

ssize_t pwritev64(int file, const iovec* parts, int count, off_t offset) {
  return pwritev(file, parts, count, offset);
}

ssize_t pread(int file, void* bytes, size_t count, off_t offset) {
  if (ReadFault()) return -1;
  return Next<ssize_t (*)(int, void*, size_t, off_t)>("pread")(file, bytes, count, offset);
}

ssize_t pread64(int file, void* bytes, size_t count, off_t offset) {
  return pread(file, bytes, count, offset);
}

ssize_t preadv(int file, const iovec* parts, int count, off_t offset) {
  if (ReadFault()) return -1;
  return Next<ssize_t (*)(int, const iovec*, int, off_t)>("preadv")(file, parts, count, offset);
}

ssize_t preadv64(int file, const iovec* parts, int count, off_t offset) {
  return preadv(file, parts, count, offset);
}

}  // extern "C"
