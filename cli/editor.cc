#include "cli/editor.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>

#include "format/error.h"
#include "io/interrupt.h"

namespace vmsave {
namespace {

std::string ChooseEditor() {
  for (const char* variable : {"VISUAL", "EDITOR"}) {
    const char* editor = std::getenv(variable);
    if (editor != nullptr && *editor != '\0') return editor;
  }
  return "vi";
}

// Returns the status that waitpid(2) tells.
int RunInShell(const std::string& command, const std::string& argument) {
  std::string script = command + " \"$@\"";
  std::string name = command;
  std::string path = argument;
  std::array<std::string, 2> shell{"sh", "-c"};
  std::array<char*, 6> arguments{shell[0].data(), shell[1].data(), script.data(), name.data(), path.data(), nullptr};
  const pid_t child = ::fork();
  if (child < 0) throw Error::FromErrno("cannot start the editor", errno);
  if (child == 0) {
    UnblockSignals();
    ::execv("/bin/sh", arguments.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw Error::FromErrno("cannot wait for the editor", errno);
  }
  return status;
}

// The terminal sent them to the editor and to us.
void ForgetKeyboardSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGQUIT);
  const timespec now{};
  while (::sigtimedwait(&signals, nullptr, &now) > 0) continue;
}

}  // namespace

void RunEditor(const std::string& path) {
  const std::string editor = ChooseEditor();
  const int status = RunInShell(editor, path);
  ForgetKeyboardSignals();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  const std::string why = WIFEXITED(status) ? fmt::format("it ended with status {}", WEXITSTATUS(status))
                                            : fmt::format("it was ended by signal {}", WTERMSIG(status));
  throw Error(ErrorKind::kFailed, fmt::format("the editor \"{}\" failed", editor), why, "set $EDITOR to another one");
}

}  // namespace vmsave
