// vmsave_engine: moves bytes between memory and a file with vmsave's engines alone, no guest and no image, as fio does
// with its own. For bench/nvme.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <vector>

#include "bench/random_memory.h"
#include "format/bytes.h"
#include "io/channels.h"
#include "io/io_engine.h"
#include "io/new_file.h"

namespace vmsave {
namespace {

struct Load {
  std::string path;
  std::uint64_t size = 0;
  std::uint64_t block = 1 << 20;
  unsigned channels = 1;
  unsigned depth = 1;
  EngineKind engine = EngineKind::kUring;
  CacheUse cache = CacheUse::kPageCache;
};

double CpuSeconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// Calls `submit(engine, block, slot)` for every block of the file, on all channels; `slot` is free, 0..depth-1.
template <class Submit>
void MoveBlocks(const Load& load, const Submit& submit) {
  const Interrupt never;
  WorkQueue queue(load.size / load.block);
  RunChannels(load.channels, never, [&](const ChannelContext& context) {
    const auto engine = MakeEngine(load.engine, load.depth);
    std::vector<RequestId> free;
    for (unsigned slot = 0; slot < load.depth; ++slot) free.push_back(slot);
    while (context.GoOn()) {
      const auto block = queue.Take();
      if (!block) break;
      if (free.empty()) free.push_back(engine->Wait());
      submit(*engine, context.channel(), FileOffset{*block * load.block}, free.back());
      free.pop_back();
    }
    engine->Drain();
  });
}

// A request has memory of its own, which is a little different each time, as fio's is.
void Write(const Load& load, const NewFile& file, std::vector<AlignedBuffer>& buffers) {
  if (::ftruncate(file.buffered().number(), static_cast<off_t>(load.size)) != 0) {
    throw Error::FromErrno("cannot extend " + load.path, errno);
  }
  MoveBlocks(load, [&](IoEngine& engine, unsigned channel, FileOffset offset, RequestId slot) {
    const std::span<std::byte> bytes = buffers[channel * load.depth + slot].bytes();
    for (std::size_t at = 0; at < bytes.size(); at += kPageBytes)
      PutLittleEndian(bytes.subspan(at), offset.value() + at);
    engine.SubmitWrite(file.pages(), bytes, offset, slot);
  });
  file.Sync();
}

void Read(const Load& load, std::vector<AlignedBuffer>& buffers) {
  const FileDescriptor file = OpenFile(load.path, O_RDONLY | (load.cache == CacheUse::kBypass ? O_DIRECT : 0));
  MoveBlocks(load, [&](IoEngine& engine, unsigned channel, FileOffset offset, RequestId slot) {
    engine.SubmitRead(file, buffers[channel * load.depth + slot].bytes(), offset, slot);
  });
}

// Without what is made before the first and after the last byte.
void Report(const std::function<void()>& work) {
  const double cpu = CpuSeconds();
  const auto start = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  fmt::print("{{\"seconds\": {:.6f}, \"cpu_seconds\": {:.6f}}}\n", elapsed.count(), CpuSeconds() - cpu);
}

void Run(const Load& load, bool reads) {
  ChooseEngine(load.engine);
  std::vector<AlignedBuffer> buffers;
  for (unsigned i = 0; i < load.channels * load.depth; ++i) buffers.push_back(RandomMemory(load.block));
  if (reads) return Report([&] { Read(load, buffers); });
  const NewFile file(load.path, Replace::kYes, load.cache);
  Report([&] { Write(load, file, buffers); });
}

int Main(int argc, char** argv) {
  Load load;
  bool reads = false;
  bool is_sync = false;
  bool is_direct = false;
  CLI::App app("Moves bytes with vmsave's engines alone; prints seconds, with those of a sync, and CPU seconds.");
  app.add_option("FILE", load.path, "to write, under another name that goes again, or to read")->required();
  app.add_option("SIZE", load.size, "bytes; rounded down to whole blocks")->required();
  app.add_option("--block", load.block, "bytes of one request, a multiple of 4096")->check(CLI::Range(4096, 1 << 30));
  app.add_option("--channels", load.channels)->check(CLI::Range(1U, kMaxChannels));
  app.add_option("--depth", load.depth, "requests in flight of each channel")
      ->check(CLI::Range(1U, IoEngine::kMaxDepth));
  app.add_flag("--read", reads, "FILE must be there");
  app.add_flag("--sync", is_sync, "preadv and pwritev instead of io_uring");
  app.add_flag("--direct", is_direct, "past the page cache");
  CLI11_PARSE(app, argc, argv);
  if (is_sync) load.engine = EngineKind::kSync;
  if (is_direct) load.cache = CacheUse::kBypass;
  Run(load, reads);
  return 0;
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  try {
    return vmsave::Main(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "vmsave_engine: {}\n", error.what());
    return 1;
  }
}
