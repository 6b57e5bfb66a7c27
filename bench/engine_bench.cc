// Writing 256 MiB in blocks of 1 MiB into a file in the current directory, which gets its length first, as a version 3
// image does, and is synced at the end.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cerrno>

#include "bench/random_memory.h"
#include "io/io_engine.h"
#include "io/new_file.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kBlockBytes = 1 << 20;
constexpr std::uint64_t kFileBytes = 256 << 20;

void WriteFile(const NewFile& file, IoEngine& engine, std::span<const std::byte> block) {
  if (::ftruncate(file.buffered().number(), kFileBytes) != 0) throw Error::FromErrno("cannot extend the file", errno);
  for (std::uint64_t offset = 0; offset < kFileBytes; offset += kBlockBytes) {
    if (engine.full()) engine.Wait();
    engine.SubmitWrite(file.pages(), block, FileOffset{offset});
  }
  engine.Drain();
  file.Sync();
}

void BM_Write(benchmark::State& state, EngineKind kind, CacheUse cache) {
  try {
    ChooseEngine(kind);
    const AlignedBuffer block = RandomMemory(kBlockBytes);
    const auto engine = MakeEngine(kind, static_cast<unsigned>(state.range(0)));
    for (auto _ : state) {
      const NewFile file("vmsave-bench-scratch", Replace::kYes, cache);
      WriteFile(file, *engine, block.bytes());
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kFileBytes));
  } catch (const Error& error) {
    state.SkipWithError(error.what());
  }
}

void Depths(benchmark::internal::Benchmark* bench) {
  bench->ArgName("depth")->Arg(1)->Arg(4)->Arg(16)->UseRealTime()->Unit(benchmark::kMillisecond)->Iterations(4);
}

BENCHMARK_CAPTURE(BM_Write, sync_direct, EngineKind::kSync, CacheUse::kBypass)->Apply(Depths);
BENCHMARK_CAPTURE(BM_Write, uring_direct, EngineKind::kUring, CacheUse::kBypass)->Apply(Depths);
BENCHMARK_CAPTURE(BM_Write, sync_buffered, EngineKind::kSync, CacheUse::kPageCache)->Apply(Depths);
BENCHMARK_CAPTURE(BM_Write, uring_buffered, EngineKind::kUring, CacheUse::kPageCache)->Apply(Depths);

}  // namespace
}  // namespace vmsave
