// Memory full of bytes that do not compress.
#pragma once

#include <cstddef>
#include <random>
#include <span>

#include "io/aligned_buffer.h"

namespace vmsave {

inline AlignedBuffer RandomMemory(std::size_t size) {
  AlignedBuffer memory(size);
  std::independent_bits_engine<std::mt19937_64, 8, unsigned> random(1);
  for (std::byte& byte : memory.bytes()) byte = static_cast<std::byte>(random());
  return memory;
}

}  // namespace vmsave
