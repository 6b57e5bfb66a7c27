#include "tests/e2e/program_run.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace vmsave {
namespace {

FileDescriptor MakeMemoryFile(const char* name) {
  FileDescriptor file(::memfd_create(name, MFD_CLOEXEC), name);
  if (!file.valid()) throw std::system_error(errno, std::generic_category(), "memfd_create");
  return file;
}

std::string ReadAll(const FileDescriptor& file) {
  struct stat status {};
  ::fstat(file.number(), &status);
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  const ssize_t count = ::pread(file.number(), text.data(), text.size(), 0);
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return text;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// As a shell at a terminal starts it: who runs the tests in the background has them ignore some.
void HeedAllSignals() {
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU}) {
    ::signal(signal, SIG_DFL);
  }
}

}  // namespace

ProgramRun::ProgramRun(const std::vector<std::string>& command, ProcessGroup group)
    : out_(MakeMemoryFile("stdout")), err_(MakeMemoryFile("stderr")) {
  std::vector<std::string> words = command;
  const std::vector<char*> arguments = Pointers(words);
  pid_ = ::fork();
  if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
  // In both processes: whoever of them goes on first finds it done.
  if (group == ProcessGroup::kOwn) ::setpgid(pid_, pid_);
  if (pid_ > 0) return;
  HeedAllSignals();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves nothing behind
  ::dup2(out_.number(), STDOUT_FILENO);
  ::dup2(err_.number(), STDERR_FILENO);
  ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

ProgramRun::~ProgramRun() {
  if (Ended()) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void ProgramRun::Signal(int signal) const {
  if (!wait_status_) ::kill(pid_, signal);
}

bool ProgramRun::Ended() {
  int status = 0;
  if (!wait_status_ && ::waitpid(pid_, &status, WNOHANG) == pid_) wait_status_ = status;
  return wait_status_.has_value();
}

std::string ProgramRun::out() const {
  return ReadAll(out_);
}

std::string ProgramRun::err() const {
  return ReadAll(err_);
}

Outcome ProgramRun::Wait() {
  WaitUntil("a program's end", [this] { return Ended(); });
  const int status = WIFSIGNALED(*wait_status_) ? 128 + WTERMSIG(*wait_status_) : WEXITSTATUS(*wait_status_);
  return {status, out(), err()};
}

Outcome RunToEnd(const std::vector<std::string>& command) {
  return ProgramRun(command).Wait();
}

}  // namespace vmsave
