// How far long work has come: written by those who work, read by whoever shows it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "format/units.h"

namespace vmsave {

// All members may be called from any thread. Bytes are those of guest RAM.
class Progress {
 public:
  // Begins a phase; `name` must be a literal.
  void Begin(const char* name, ByteCount total) {
    done_.store(0, std::memory_order_relaxed);
    total_.store(total.value(), std::memory_order_relaxed);
    phase_.store(name, std::memory_order_release);
  }
  // Both may be unlike before: what there is to do can grow.
  void Set(ByteCount done, ByteCount total) {
    total_.store(total.value(), std::memory_order_relaxed);
    done_.store(done.value(), std::memory_order_relaxed);
  }
  // What a guest waited for meanwhile that runs already, and how long 99 of 100 times at most.
  void SetDemand(ByteCount demanded, std::chrono::microseconds latency) {
    demanded_.store(demanded.value(), std::memory_order_relaxed);
    demand_latency_us_.store(latency.count(), std::memory_order_relaxed);
  }
  void Advance(ByteCount bytes) { done_.fetch_add(bytes.value(), std::memory_order_relaxed); }

  std::string_view phase() const { return phase_.load(std::memory_order_acquire); }
  ByteCount done() const { return ByteCount{done_.load(std::memory_order_relaxed)}; }
  ByteCount total() const { return ByteCount{total_.load(std::memory_order_relaxed)}; }
  struct Demand {
    ByteCount bytes;
    std::chrono::microseconds latency;
  };
  // Nothing where no guest runs while its memory comes.
  std::optional<Demand> demand() const {
    const std::int64_t latency = demand_latency_us_.load(std::memory_order_relaxed);
    if (latency < 0) return std::nullopt;
    return Demand{ByteCount{demanded_.load(std::memory_order_relaxed)}, std::chrono::microseconds(latency)};
  }

 private:
  std::atomic<const char*> phase_{"starting"};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<std::uint64_t> total_{0};
  std::atomic<std::uint64_t> demanded_{0};
  std::atomic<std::int64_t> demand_latency_us_{-1};
};

}  // namespace vmsave
