// A program that goes on in the background once it has done what somebody waits for.
#pragma once

#include <functional>

namespace vmsave {

// Runs `body` in a new process and returns its exit status; or 0 as soon as it calls what it is given, and it then has
// a session of its own, no terminal and no standard streams. Signals that come to this process alone before that are
// passed on. REQUIRES: no thread has been started. Throws Error{kFailed} where there can be no process.
int RunInBackground(const std::function<int(const std::function<void()>& go_there)>& body);

}  // namespace vmsave
