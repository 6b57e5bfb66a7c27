// Faults at chosen system calls of a program: see tests/faults/faults.cc.
#pragma once

#include <signal.h>

#include <string>
#include <vector>

#include "tests/e2e/program_run.h"

namespace vmsave {

// The status of a program that a fault has killed.
inline constexpr int kKilled = 128 + SIGKILL;

// `command` with one fault: that of `what` at its call `number`, from 1. Its sockets go into a directory of
// `temporary_directory`.
inline std::vector<std::string> WithFault(const std::string& what, unsigned number,
                                          const std::string& temporary_directory,
                                          const std::vector<std::string>& command) {
  std::vector<std::string> whole{"env",
                                 "-u",
                                 "XDG_RUNTIME_DIR",
                                 "TMPDIR=" + temporary_directory,
                                 "ASAN_OPTIONS=verify_asan_link_order=0",  // the library comes before the sanitizer
                                 std::string("LD_PRELOAD=") + FAULTS_LIBRARY,
                                 "VMSAVE_FAULT=" + what + ":" + std::to_string(number)};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

// Waits until no process is left that was started with `argument`, one of the command's: the program, and the guard
// that outlives it and has its say too.
Outcome WaitForGuardToo(ProgramRun& run, const std::string& argument);
Outcome RunToEndOfGuard(const std::vector<std::string>& command, const std::string& argument);

// Whether it stands still by a signal, as those of a fault or of job control.
bool IsStopped(const ProgramRun& run);

// At which steps the tests fail a program that try fault after fault.
struct FaultSteps {
  // What to set to try the same ones again.
  std::string Text() const;

  unsigned start;  // from 1 on
  unsigned stride;
};

// Every VMSAVE_FAULT_STRIDE-th from VMSAVE_FAULT_START on; what of these is not set is drawn anew each time, the stride
// near the usual one (1 stays 1): so that all steps are tried in the end.
FaultSteps ChooseFaultSteps(unsigned usual_stride);

}  // namespace vmsave
