// An engine that moves nothing and is done at once: what remains is the way from the guest's memory to it.
#pragma once

#include <deque>

#include "io/io_engine.h"

namespace vmsave {

class NullEngine final : public IoEngine {
 public:
  explicit NullEngine(unsigned depth) : IoEngine(depth) {}

  EngineKind kind() const override { return EngineKind::kSync; }

 protected:
  void Start(const Transfer& transfer) override {
    done_.push_back({transfer.slot, static_cast<std::int64_t>(transfer.length)});
  }

  Completion WaitForOne() override {
    const Completion first = done_.front();  // in turn, so that all buffers are used as with a real one
    done_.pop_front();
    return first;
  }

 private:
  std::deque<Completion> done_;
};

}  // namespace vmsave
