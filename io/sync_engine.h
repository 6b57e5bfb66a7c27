// The engine for kernels without io_uring, and the one that the other is tested against: preadv(2) and pwritev(2).
#pragma once

#include <deque>

#include "io/io_engine.h"

namespace vmsave {

// Start makes the transfer before it returns; WaitForOne hands the results out in that order.
class SyncEngine final : public IoEngine {
 public:
  explicit SyncEngine(unsigned depth) : IoEngine(depth) {}

  EngineKind kind() const override { return EngineKind::kSync; }

 private:
  void Start(const Transfer& transfer) override;
  Completion WaitForOne() override;

  std::deque<Completion> done_;
};

}  // namespace vmsave
