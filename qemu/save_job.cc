#include "qemu/save_job.h"

namespace vmsave {

std::unique_ptr<PageStore> MakeStore(const SaveJob& job, const StreamContents& contents) {
  ArrivingGuest guest{contents.frame, contents.block_shapes(), job.description, job.was_running};
  const auto make = job.version == ImageVersion::k3 ? MakeVersion3Store : MakeVersion2Store;
  return make(job.file, std::move(guest), job.write);
}

}  // namespace vmsave
