// The guest's RAM straight from its shared backends.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "qemu/device_capture.h"
#include "qemu/save_job.h"

namespace vmsave {
namespace {

std::set<std::string> MappedBlockNames(const std::vector<MappedBackend>& ram) {
  std::set<std::string> names;
  for (const MappedBackend& mapped : ram) names.insert(mapped.block_name);
  return names;
}

RamBlock MakeBlock(const StreamBlock& block, const MemoryMapping& private_memory,
                   const std::vector<MappedBackend>& ram) {
  RamBlock result{block.name, private_memory.bytes(), block.address, nullptr, FileOffset{0}};
  if (!result.memory.empty()) return result;
  const auto mapped = std::ranges::find(ram, block.name, &MappedBackend::block_name);
  if (mapped->memory.bytes().size() != block.length.value()) {
    throw Error(
        ErrorKind::kFailed, fmt::format("cannot save RAM block {}", block.name),
        fmt::format("its backend has {} bytes, the block {}", mapped->memory.bytes().size(), block.length.value()));
  }
  result.memory = mapped->memory.bytes();
  result.backing = &mapped->file;
  result.backing_start = mapped->start_in_file;
  return result;
}

GuestImage MakeImage(const CapturedState& state, const std::vector<MappedBackend>& ram, const SaveJob& job) {
  GuestImage image;
  image.frame = state.contents.frame;
  for (std::size_t i = 0; i < state.contents.blocks.size(); ++i) {
    image.blocks.push_back(MakeBlock(state.contents.blocks[i], state.private_memory[i], ram));
  }
  image.device_state = state.device_state;
  image.description = job.description;
  image.was_running = job.was_running;
  image.release = job.release;
  return image;
}

}  // namespace

WriteTotals SaveFromMemory(SaveJob& job, const std::vector<MappedBackend>& ram) {
  job.progress.Begin("device state", ByteCount{0});
  const CapturedState state = CaptureDevices(job.qmp, MappedBlockNames(ram), job.most_ram, job.interrupt, job.guard);
  job.found_state(state.device_state);
  const GuestImage image = MakeImage(state, ram, job);
  const auto write = job.version == ImageVersion::k3 ? WriteVersion3 : WriteVersion2;
  return write(job.file, image, job.write, job.progress, job.interrupt);
}

}  // namespace vmsave
