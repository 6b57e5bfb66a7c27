// Bytes that differ from place to place, so that a transfer to the wrong place shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "io/aligned_buffer.h"

namespace vmsave {

inline void FillWithPattern(std::span<std::byte> bytes, std::uint64_t seed) {
  std::uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<std::byte>(state >> 56U);
  }
}

inline AlignedBuffer PatternBuffer(std::size_t size, std::uint64_t seed) {
  AlignedBuffer buffer(size);
  FillWithPattern(buffer.bytes(), seed);
  return buffer;
}

}  // namespace vmsave
