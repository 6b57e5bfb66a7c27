#include "bench/machine.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "io/io_engine.h"
#include "io/new_file.h"
#include "writer/zero_scan.h"

namespace vmsave {
namespace {

std::string Cpu() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      return fmt::format("{}, {} cores", line.substr(line.find(':') + 2), ::sysconf(_SC_NPROCESSORS_ONLN));
    }
  }
  return "unknown";
}

std::string Kernel() {
  utsname name{};
  return ::uname(&name) == 0 ? fmt::format("{} {}", name.sysname, name.release) : "unknown";
}

std::string FileSystem() {
  struct statfs status {};
  if (::statfs(".", &status) != 0) return "unknown";
  switch (static_cast<unsigned long>(status.f_type)) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case TMPFS_MAGIC:
      return "tmpfs (in memory: says nothing about a disk)";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    case NFS_SUPER_MAGIC:
      return "nfs";
    default:
      return fmt::format("type {:#x}", static_cast<unsigned long>(status.f_type));
  }
}

std::string DirectIo() {
  try {
    const NewFile probe("vmsave-bench-probe", Replace::kYes, CacheUse::kBypass);
    return fmt::format("memory {}, offset {}", probe.alignment().memory, probe.alignment().file_offset);
  } catch (const Error& error) {
    return fmt::format("none: {}", error.what());
  }
}

std::string Engines() {
  const EngineChoice choice = ChooseEngine(std::nullopt);
  return choice.kind == EngineKind::kUring ? "uring, sync" : fmt::format("sync ({})", choice.fallback_reason);
}

// The library's own warning is about how the library was built, not this program.
void WarnOfSlowBuild() {
#if !defined(NDEBUG) || !defined(__OPTIMIZE__)
  fmt::print(stderr, "WARNING: built without optimisation or with assertions: the figures say nothing\n");
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  fmt::print(stderr, "WARNING: built with sanitizers: the figures say nothing\n");
#endif
}

}  // namespace

void DescribeMachine() {
  benchmark::AddCustomContext("cpu", Cpu());
  benchmark::AddCustomContext("kernel", Kernel());
  benchmark::AddCustomContext("file system", FileSystem());
  benchmark::AddCustomContext("direct I/O alignment", DirectIo());
  benchmark::AddCustomContext("engines", Engines());
  benchmark::AddCustomContext("zero scan", std::string(ZeroScanName(BestZeroScan())));
  WarnOfSlowBuild();
}

}  // namespace vmsave
