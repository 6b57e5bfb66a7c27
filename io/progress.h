// How far long work has come: written by those who work, read by whoever shows it.
#pragma once

#include <atomic>
#include <cstdint>
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
  void Advance(ByteCount bytes) { done_.fetch_add(bytes.value(), std::memory_order_relaxed); }

  std::string_view phase() const { return phase_.load(std::memory_order_acquire); }
  ByteCount done() const { return ByteCount{done_.load(std::memory_order_relaxed)}; }
  ByteCount total() const { return ByteCount{total_.load(std::memory_order_relaxed)}; }

 private:
  std::atomic<const char*> phase_{"starting"};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<std::uint64_t> total_{0};
};

}  // namespace vmsave
