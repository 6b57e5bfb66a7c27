#include "io/sync_engine.h"

#include <sys/uio.h>

#include <cerrno>

namespace vmsave {

void SyncEngine::Start(const Transfer& transfer) {
  const iovec piece{transfer.bytes, transfer.length};
  const auto offset = static_cast<off_t>(transfer.offset.value());
  const ssize_t moved = transfer.direction == Direction::kRead ? ::preadv(transfer.file->number(), &piece, 1, offset)
                                                               : ::pwritev(transfer.file->number(), &piece, 1, offset);
  done_.push_back({transfer.slot, moved < 0 ? -std::int64_t{errno} : std::int64_t{moved}});
}

IoEngine::Completion SyncEngine::WaitForOne() {
  const Completion completion = done_.front();
  done_.pop_front();
  return completion;
}

}  // namespace vmsave
