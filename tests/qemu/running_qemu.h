// Real QEMUs for tests. Which ones: environment variables VMSAVE_QEMU_OLD and VMSAVE_QEMU_NEW.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "qemu/qmp_client.h"
#include "tests/scratch_directory.h"

namespace vmsave {

// The path of a QEMU, nothing if the environment variable does not tell one.
inline std::optional<std::string> QemuFromEnvironment(const char* variable) {
  const char* path = std::getenv(variable);
  if (path == nullptr || *path == '\0') return std::nullopt;
  return path;
}

// Long enough for any machine; a test that passes does not wait for it.
inline constexpr std::chrono::seconds kTestPatience{120};

// A QEMU without devices and display (TCG) with a QMP socket, ready to be connected to; killed by the destructor.
class RunningQemu {
 public:
  RunningQemu(const std::string& executable, const std::vector<std::string>& arguments) {
    std::vector<std::string> command{executable, "-accel", "tcg", "-display", "none", "-nodefaults"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.insert(command.end(), {"-qmp", "unix:" + qmp_socket_path() + ",server=on,wait=off"});
    Start(command);
    try {
      WaitForGreeting(executable);
    } catch (...) {
      Kill();
      throw;
    }
  }
  RunningQemu(const RunningQemu&) = delete;
  RunningQemu& operator=(const RunningQemu&) = delete;
  ~RunningQemu() { Kill(); }

  std::string qmp_socket_path() const { return directory_.Path("qmp.sock"); }
  pid_t pid() const { return pid_; }

  void Kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  void Start(std::vector<std::string>& command) {
    std::vector<char*> pointers;
    pointers.reserve(command.size() + 1);
    for (std::string& word : command) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ == 0) {
      ::execv(pointers[0], pointers.data());
      ::_exit(127);
    }
  }

  // QEMU listens before it is ready, and a connection of before is not served until then.
  void WaitForGreeting(const std::string& executable) const {
    const Interrupt never;
    const auto deadline = std::chrono::steady_clock::now() + kTestPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) throw std::runtime_error(executable + " ended");
      try {
        const QmpClient client(qmp_socket_path(), never, kTestPatience);
        return;
      } catch (const Error&) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
    throw std::runtime_error(executable + " does not answer");
  }

  ScratchDirectory directory_;
  pid_t pid_ = -1;
};

}  // namespace vmsave
