// How fast zero pages are found, page by page as the writers look at them: over zeros, which must be read to the end,
// and over random bytes, of which the first few tell.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "bench/random_memory.h"
#include "format/units.h"
#include "writer/zero_scan.h"

namespace vmsave {
namespace {

constexpr std::size_t kInCache = 1 << 20;
constexpr std::size_t kInMemory = 256 << 20;

void BM_Scan(benchmark::State& state, ZeroScanKind kind, bool zero) {
  if (!CanRun(kind)) {
    state.SkipWithError("this CPU cannot");
    return;
  }
  const auto size = static_cast<std::size_t>(state.range(0));
  AlignedBuffer memory = zero ? AlignedBuffer(size) : RandomMemory(size);
  if (zero) std::ranges::fill(memory.bytes(), std::byte{0});
  for (auto _ : state) {
    std::size_t zeros = 0;
    for (std::size_t at = 0; at < size; at += kPageBytes) {
      zeros += IsZero(memory.bytes().subspan(at, kPageBytes), kind) ? 1 : 0;
    }
    benchmark::DoNotOptimize(zeros);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void Sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("bytes")->Arg(kInCache)->Arg(kInMemory);
}

BENCHMARK_CAPTURE(BM_Scan, zero_portable, ZeroScanKind::kPortable, true)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, zero_SSE2, ZeroScanKind::kSse2, true)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, zero_AVX2, ZeroScanKind::kAvx2, true)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, zero_AVX512, ZeroScanKind::kAvx512, true)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, random_portable, ZeroScanKind::kPortable, false)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, random_SSE2, ZeroScanKind::kSse2, false)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, random_AVX2, ZeroScanKind::kAvx2, false)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Scan, random_AVX512, ZeroScanKind::kAvx512, false)->Apply(Sizes);

}  // namespace
}  // namespace vmsave
