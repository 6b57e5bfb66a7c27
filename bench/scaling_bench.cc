// How the way from the guest's memory to the engine scales with channels: the writers themselves, with engines that are
// done at once.
#include <benchmark/benchmark.h>
#include <time.h>
#include <x86intrin.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <thread>

#include "bench/machine.h"
#include "bench/null_engine.h"
#include "writer/image_writer.h"
#include "writer/page_store.h"
#include "writer/synthetic_guest.h"

namespace vmsave {

namespace {

std::atomic<unsigned>& NullEnginesMade() {
  static std::atomic<unsigned> made = 0;
  return made;
}

}  // namespace

// The linker puts this one in MakeEngine's place (bench/CMakeLists.txt).
std::unique_ptr<IoEngine> MakeNullEngine(EngineKind kind,
                                         unsigned depth) asm("__wrap__ZN6vmsave10MakeEngineENS_10EngineKindEj");
std::unique_ptr<IoEngine> MakeNullEngine(EngineKind /*kind*/, unsigned depth) {
  NullEnginesMade().fetch_add(1, std::memory_order_relaxed);
  return std::make_unique<NullEngine>(depth);
}

namespace {

constexpr ByteCount kRam{512 << 20};
constexpr std::size_t kPagesOfPacket = 128;  // multifd's

const SyntheticGuest& Guest() {
  static const SyntheticGuest guest({.size = kRam});
  return guest;
}

// CPU of the whole process: how many cores it kept busy, and what the time stamp counter, at its own rate, counts in so
// much time.
class CpuMeter {
 public:
  double cores() const { return (CpuNow() - cpu_) / (Now(CLOCK_MONOTONIC) - time_); }
  double cycles() const { return cores() * static_cast<double>(__rdtsc() - ticks_); }

 private:
  static double Now(clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  static double CpuNow() { return Now(CLOCK_PROCESS_CPUTIME_ID); }

  double cpu_ = CpuNow();
  double time_ = Now(CLOCK_MONOTONIC);
  unsigned long long ticks_ = __rdtsc();
};

// Calls `write(file, options)` again and again, with an empty file.
template <class Write>
void Measure(benchmark::State& state, const Write& write) {
  const WriteOptions options{static_cast<unsigned>(state.range(0)), EngineKind::kSync, state.range(1) != 0};
  const unsigned before = NullEnginesMade();
  try {
    Guest();
    const CpuMeter meter;
    for (auto _ : state) {
      NewFile file("vmsave-bench-scratch", Replace::kYes, CacheUse::kPageCache);
      write(file, options);
    }
    const auto pages = static_cast<double>(state.iterations()) * static_cast<double>(kRam.value() / kPageBytes);
    state.counters["cycles/page"] = meter.cycles() / pages;
    state.counters["cores"] = meter.cores();
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kRam.value()));
  } catch (const Error& error) {
    state.SkipWithError(error.what());
  }
  if (NullEnginesMade() == before) state.SkipWithError("the writers made engines of another kind");
}

void BM_SaveMapped(benchmark::State& state) {
  Measure(state, [](NewFile& file, const WriteOptions& options) {
    Progress progress;
    WriteVersion3(file, Guest().image(), options, progress, Interrupt());
  });
}

// As vmsave does it: the mapping is new to the process, so that every page has to be found by the kernel first.
void BM_SaveNewlyMapped(benchmark::State& state) {
  Measure(state, [](NewFile& file, const WriteOptions& options) {
    GuestImage image = Guest().image();
    RamBlock& block = image.blocks.front();
    const MemoryMapping mapping =
        MemoryMapping::OfFile(*block.backing, block.backing_start, block.length(), MemoryMapping::Access::kRead);
    block.memory = mapping.bytes();
    Progress progress;
    WriteVersion3(file, image, options, progress, Interrupt());
  });
}

void BM_SaveVersion2(benchmark::State& state) {
  Measure(state, [](NewFile& file, const WriteOptions& options) {
    Progress progress;
    WriteVersion2(file, Guest().image(), options, progress, Interrupt());
  });
}

// Packets as multifd sends them, copied from memory instead of received.
void TakePackets(PageStore& store, const RamBlock& block, const WriteOptions& options) {
  WorkQueue packets(block.pages() / kPagesOfPacket);
  RunChannels(options.channels, Interrupt(), [&](const ChannelContext& context) {
    const auto channel = store.OpenChannel();
    std::vector<PageIndex> pages(kPagesOfPacket);
    while (context.GoOn()) {
      const auto packet = packets.Take();
      if (!packet) break;
      std::ranges::generate(pages, [next = *packet * kPagesOfPacket]() mutable { return PageIndex{next++}; });
      const std::byte* from = block.memory.data() + *packet * kPagesOfPacket * kPageBytes;
      for (const iovec& piece : channel->Place(0, pages)) {
        std::memcpy(piece.iov_base, from, piece.iov_len);
        from += piece.iov_len;
      }
      channel->Commit();
    }
    channel->Settle();
  });
}

void BM_SaveArriving(benchmark::State& state) {
  Measure(state, [](NewFile& file, const WriteOptions& options) {
    const GuestImage& guest = Guest().image();
    const RamBlock& block = guest.blocks.front();
    const auto store =
        MakeVersion3Store(file, {guest.frame, {{block.name, block.length()}}, guest.description, true}, options);
    TakePackets(*store, block, options);
    Progress progress;
    store->Complete(guest.frame, guest.device_state, progress, Interrupt());
  });
}

// Up to twice as many channels as there are cores.
void Channels(benchmark::internal::Benchmark* bench, bool checksums) {
  bench->ArgNames({"channels", "checksums"})->UseRealTime()->Unit(benchmark::kMillisecond);
  const unsigned cores = std::max(std::thread::hardware_concurrency(), 1U);
  for (unsigned channels = 1; channels <= 2 * cores; channels *= 2) bench->Args({channels, checksums});
}

void WithoutChecksums(benchmark::internal::Benchmark* bench) {
  Channels(bench, false);
}

void WithAndWithoutChecksums(benchmark::internal::Benchmark* bench) {
  Channels(bench, true);
  Channels(bench, false);
}

BENCHMARK(BM_SaveMapped)->Apply(WithAndWithoutChecksums);
BENCHMARK(BM_SaveNewlyMapped)->Apply(WithAndWithoutChecksums);
BENCHMARK(BM_SaveVersion2)->Apply(WithoutChecksums);
BENCHMARK(BM_SaveArriving)->Apply(WithAndWithoutChecksums);

}  // namespace
}  // namespace vmsave
