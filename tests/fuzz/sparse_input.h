// An image with holes as an input without them: its data, a table of the holes, and the number of holes as the last
// byte.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "tests/fuzz/memory_file.h"

namespace vmsave {

// Makes the file of an input. Whatever the input, it is at most some MiB longer.
void PutSparseInput(std::span<const std::byte> input, MemoryFile& file);

// The input of a file: its pages of zeros are left out as far as the table has room.
std::vector<std::byte> MakeSparseInput(std::span<const std::byte> file);

}  // namespace vmsave
