// XXH3-64 of a chunk: at once, page by page, and by the library's plain function, which was compiled for any CPU.
#include <benchmark/benchmark.h>
#include <xxhash.h>

#include "bench/random_memory.h"
#include "format/integrity_table.h"
#include "format/page_hash.h"

namespace vmsave {
namespace {

void BM_HashAtOnce(benchmark::State& state) {
  const AlignedBuffer chunk = RandomMemory(kChunkBytes);
  for (auto _ : state) benchmark::DoNotOptimize(Xxh3(chunk.bytes()));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kChunkBytes));
}
BENCHMARK(BM_HashAtOnce);

void BM_HashPageByPage(benchmark::State& state) {
  const AlignedBuffer chunk = RandomMemory(kChunkBytes);
  Xxh3Stream hash;
  for (auto _ : state) {
    for (std::size_t at = 0; at < kChunkBytes; at += kPageBytes) hash.Update(chunk.bytes().subspan(at, kPageBytes));
    benchmark::DoNotOptimize(hash.Finish());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kChunkBytes));
}
BENCHMARK(BM_HashPageByPage);

void BM_HashPlainLibrary(benchmark::State& state) {
  const AlignedBuffer chunk = RandomMemory(kChunkBytes);
  for (auto _ : state) benchmark::DoNotOptimize(XXH3_64bits(chunk.bytes().data(), chunk.size()));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kChunkBytes));
}
BENCHMARK(BM_HashPlainLibrary);

}  // namespace
}  // namespace vmsave
