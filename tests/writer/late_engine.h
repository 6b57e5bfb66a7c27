// An engine that does everything as late as an engine may, and in any order.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "io/io_engine.h"

namespace vmsave {

// A transfer is made when somebody waits for one, or at the end of the engine: whatever relies on a write that nobody
// waited for finds it not done. Which one is made is random, and so is a pause before it.
class LateEngine final : public IoEngine {
 public:
  LateEngine(unsigned depth, std::uint64_t seed) : IoEngine(depth), random_(seed) {}
  ~LateEngine() override {
    while (!waiting_.empty()) TransferOne();
  }
  LateEngine(const LateEngine&) = delete;
  LateEngine& operator=(const LateEngine&) = delete;

  EngineKind kind() const override { return EngineKind::kSync; }

  // The writes behind that many fail with EIO.
  void FailAfter(std::uint64_t transfers) { good_transfers_ = transfers; }

 private:
  void Start(const Transfer& transfer) override { waiting_.push_back(transfer); }
  Completion WaitForOne() override { return TransferOne(); }

  Completion TransferOne() {
    std::swap(waiting_[random_() % waiting_.size()], waiting_.back());
    const Transfer transfer = waiting_.back();
    waiting_.pop_back();
    if (random_() % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random_() % 100));
    if (good_transfers_ && (*good_transfers_)-- == 0) {
      good_transfers_ = 0;
      return {transfer.slot, -EIO};
    }
    const auto offset = static_cast<off_t>(transfer.offset.value());
    const int file = transfer.file->number();
    const ssize_t moved = transfer.direction == Direction::kRead
                              ? ::pread(file, transfer.bytes, transfer.length, offset)
                              : ::pwrite(file, transfer.bytes, transfer.length, offset);
    return {transfer.slot, moved < 0 ? -std::int64_t{errno} : std::int64_t{moved}};
  }

  std::mt19937_64 random_;
  std::vector<Transfer> waiting_;
  std::optional<std::uint64_t> good_transfers_;
};

}  // namespace vmsave
