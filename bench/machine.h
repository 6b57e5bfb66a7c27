// What the figures were measured on: printed ahead of them.
#pragma once

namespace vmsave {

// Adds CPU, kernel, file system of the current directory, direct I/O's alignment and engines to the benchmarks'
// context, and warns on stderr where the build says nothing about speed. Call between benchmark::Initialize and the
// run.
void DescribeMachine();

}  // namespace vmsave
