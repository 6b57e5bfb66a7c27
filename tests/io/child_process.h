// Runs a piece of a test in a process of its own, where it may take limits, permissions and system calls away.
#pragma once

#include <functional>
#include <string>

namespace vmsave {

// Forks, calls `body` in the child and returns what it returned. Where it threw, that is the exception's text; where
// the child died, "(died: WAIT STATUS)". The child's destructors of static and of the caller's objects do not run.
std::string InChild(const std::function<std::string()>& body);

// From now on, in this process and for good, the system call fails with `error_number` and does nothing. False where
// the kernel does not let us (no seccomp).
bool FailSystemCall(long system_call, int error_number);

// Mounts a fresh file system on `directory`, seen by this process only. False where the kernel does not let us.
bool MountForMyself(const std::string& type, const std::string& directory, const std::string& options);

// What a body returns where it could not take away what it wanted to; the test is skipped then.
inline const std::string kNotPermitted = "(not permitted)";

}  // namespace vmsave
