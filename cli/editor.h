// The operator's editor.
#pragma once

#include <string>

namespace vmsave {

// Runs $VISUAL, else $EDITOR, else vi, by way of the shell, so that it may have options, on the file; returns when it
// has ended. Ctrl-C meanwhile is the editor's business. Throws Error{kFailed} where it cannot be run, or fails.
// REQUIRES: no other thread runs.
void RunEditor(const std::string& path);

}  // namespace vmsave
