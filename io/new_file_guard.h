// A process that removes what a program was making when it is killed.
#pragma once

#include <string>

#include "io/guard_process.h"
#include "io/new_file.h"

namespace vmsave {

// Of one NewFile at a time, for a program that has nothing else to undo.
class NewFileGuard {
 public:
  // `program`: who was killed, in what the guard tells. Forks, as GuardProcess does. REQUIRES: no other thread has been
  // started. Throws Error{kFailed}.
  explicit NewFileGuard(const std::string& program);

  // For NewFile, while this object lives.
  NewFile::Announce AnnounceFile();

 private:
  GuardProcess process_;
};

}  // namespace vmsave
