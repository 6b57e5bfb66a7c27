#include "writer/zero_scan.h"

#include <cstring>

#include "format/units.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vmsave {
namespace {

constexpr std::size_t kStep = 256;

using ZeroTest = bool (*)(const std::byte*, std::size_t);

bool IsZeroPortable(const std::byte* bytes, std::size_t size) {
  for (std::size_t at = 0; at < size; at += kStep) {
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < kStep; i += sizeof any) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes + at + i, sizeof word);
      any |= word;
    }
    if (any != 0) return false;
  }
  return true;
}

#if defined(__x86_64__)
__attribute__((target("sse2"))) bool IsZeroSse2(const std::byte* bytes, std::size_t size) {
  for (std::size_t at = 0; at < size; at += kStep) {
    __m128i any = _mm_setzero_si128();
    for (std::size_t i = 0; i < kStep; i += sizeof any) {
      any = _mm_or_si128(any, _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + at + i)));
    }
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) != 0xffff) return false;
  }
  return true;
}

__attribute__((target("avx2"))) bool IsZeroAvx2(const std::byte* bytes, std::size_t size) {
  for (std::size_t at = 0; at < size; at += kStep) {
    __m256i any = _mm256_setzero_si256();
    for (std::size_t i = 0; i < kStep; i += sizeof any) {
      any = _mm256_or_si256(any, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + at + i)));
    }
    if (_mm256_testz_si256(any, any) == 0) return false;
  }
  return true;
}

__attribute__((target("avx512f"))) bool IsZeroAvx512(const std::byte* bytes, std::size_t size) {
  for (std::size_t at = 0; at < size; at += kStep) {
    __m512i any = _mm512_setzero_si512();
    for (std::size_t i = 0; i < kStep; i += sizeof any) {
      any = _mm512_or_si512(any, _mm512_loadu_si512(bytes + at + i));
    }
    if (_mm512_test_epi64_mask(any, any) != 0) return false;
  }
  return true;
}
#endif

ZeroTest TestOf(ZeroScanKind kind) {
  switch (kind) {
#if defined(__x86_64__)
    case ZeroScanKind::kSse2:
      return IsZeroSse2;
    case ZeroScanKind::kAvx2:
      return IsZeroAvx2;
    case ZeroScanKind::kAvx512:
      return IsZeroAvx512;
#endif
    default:
      return IsZeroPortable;
  }
}

}  // namespace

std::string_view ZeroScanName(ZeroScanKind kind) {
  constexpr std::string_view kNames[] = {"portable", "SSE2", "AVX2", "AVX-512"};
  return kNames[static_cast<int>(kind)];
}

bool CanRun(ZeroScanKind kind) {
#if defined(__x86_64__)
  if (kind == ZeroScanKind::kAvx512) return __builtin_cpu_supports("avx512f") != 0;
  if (kind == ZeroScanKind::kAvx2) return __builtin_cpu_supports("avx2") != 0;
  return true;
#else
  return kind == ZeroScanKind::kPortable;
#endif
}

ZeroScanKind BestZeroScan() {
  for (const ZeroScanKind kind : {ZeroScanKind::kAvx512, ZeroScanKind::kAvx2, ZeroScanKind::kSse2}) {
    if (CanRun(kind)) return kind;
  }
  return ZeroScanKind::kPortable;
}

bool IsZero(std::span<const std::byte> bytes, ZeroScanKind kind) {
  return TestOf(kind)(bytes.data(), bytes.size());
}

std::uint64_t PresentMask(std::span<const std::byte> pages) {
  static const ZeroTest is_zero = TestOf(BestZeroScan());
  std::uint64_t mask = 0;
  for (std::size_t page = 0; page < pages.size() / kPageBytes; ++page) {
    if (!is_zero(pages.data() + page * kPageBytes, kPageBytes)) mask |= std::uint64_t{1} << page;
  }
  return mask;
}

}  // namespace vmsave
