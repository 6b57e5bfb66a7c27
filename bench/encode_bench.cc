// How fast one channel makes version 2's records, a block of 1 MiB at a time.
#include <benchmark/benchmark.h>

#include "io/aligned_buffer.h"
#include "writer/legacy_stream.h"
#include "writer/ram_scan.h"
#include "writer/synthetic_guest.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kBlockBytes = 1 << 20;

std::vector<PageBitmap> FindPresentPages(const GuestImage& guest) {
  std::vector<PageBitmap> present = EmptyBitmaps(guest.blocks);
  const WorkPlan plan = PlanWork(guest.blocks);
  ChunkScanner scanner;
  for (std::uint64_t number = 0; number < plan.chunk_count(); ++number) {
    const WorkChunk chunk = plan.chunk(number);
    scanner.Scan(guest.blocks[chunk.block], chunk, present[chunk.block]);
  }
  return present;
}

// Bytes are those of the stream made; ram_per_second counts the guest's memory that they stand for.
void BM_MakeStream(benchmark::State& state) {
  const SyntheticGuest guest({ByteCount{64 << 20}, static_cast<unsigned>(state.range(0)), 1});
  const std::vector<PageBitmap> present = FindPresentPages(guest.image());
  LegacyStream stream({}, guest.image(), present);
  for (std::uint64_t chunk = 0; chunk < stream.plan().chunk_count(); ++chunk) stream.Settle(chunk);
  AlignedBuffer block(kBlockBytes);
  const std::uint64_t length = stream.known().end.value();
  for (auto _ : state) {
    for (std::uint64_t at = 0; at < length; at += kBlockBytes) {
      stream.Make(FileOffset{at}, block.bytes().first(std::min(kBlockBytes, length - at)));
      benchmark::ClobberMemory();
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(length));
  state.counters["ram_per_second"] =
      benchmark::Counter(static_cast<double>(guest.image().ram_length().value()),
                         benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1024);
}
BENCHMARK(BM_MakeStream)->ArgName("zero_percent")->Arg(0)->Arg(50)->Arg(95);

}  // namespace
}  // namespace vmsave
