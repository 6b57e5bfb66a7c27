// The configuration file.
#include "cli/configuration.h"
#include "io/channels.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file.h"

// libconfig forgets the string that it was reading when it finds an error.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libconfig";
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using vmsave::Require;
  const vmsave::MemoryFile file(std::as_bytes(std::span(data, size)));
  vmsave::Configuration taken;
  if (!vmsave::Succeeds([&] { taken = vmsave::ReadConfiguration(file.path()); })) return 0;
  const int version = taken.save_image_version.value_or(2);
  Require(version == 2 || version == 3);
  const unsigned channels = taken.parallel.value_or(1);
  Require(channels >= 1 && channels <= vmsave::kMaxChannels);
  const std::string engine = taken.io_engine.value_or("auto");
  Require(engine == "auto" || engine == "uring" || engine == "sync");
  return 0;
}
