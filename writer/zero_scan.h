// Finds zero pages by the widest instructions that this CPU has: AVX-512, AVX2 or SSE2, chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace vmsave {

enum class ZeroScanKind { kPortable, kSse2, kAvx2, kAvx512 };

std::string_view ZeroScanName(ZeroScanKind kind);

// The best that this CPU can run.
ZeroScanKind BestZeroScan();
bool CanRun(ZeroScanKind kind);

// Whether all bytes are zero. REQUIRES: bytes.size() is a multiple of 256; CanRun(kind).
bool IsZero(std::span<const std::byte> bytes, ZeroScanKind kind);

// Bit i is set where page i of `pages` has a byte that is not zero. REQUIRES: at most 64 whole pages.
std::uint64_t PresentMask(std::span<const std::byte> pages);

}  // namespace vmsave
