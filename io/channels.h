// Channels: threads that share one piece of work, each with an engine of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "io/interrupt.h"
#include "io/progress.h"

namespace vmsave {

inline constexpr unsigned kMaxChannels = 256;

// What a channel asks between two chunks.
class ChannelContext {
 public:
  // `outer`: of the channel that this one is a part of, where there is one.
  ChannelContext(unsigned channel, const std::atomic<bool>& failed, const Interrupt& interrupt,
                 const ChannelContext* outer = nullptr)
      : channel_(channel), failed_(failed), interrupt_(interrupt), outer_(outer) {}

  unsigned channel() const { return channel_; }
  const Interrupt& interrupt() const { return interrupt_; }

  // False when another channel has failed: end quietly. Throws Error{kInterrupted} when the operator asked to stop.
  bool GoOn() const;

  // For a channel that cannot end quietly: throws where GoOn would tell false.
  void EndWithOthers() const;

 private:
  unsigned channel_;
  const std::atomic<bool>& failed_;
  const Interrupt& interrupt_;
  const ChannelContext* outer_;
};

// Runs `body` on `count` threads at once and returns when all have ended. The first exception of any is thrown again
// here. `on_failure` is called once, before that: for bodies that wait where their context cannot reach them. Not all
// of them may have begun: a thread that cannot be started is a failure too.
void RunChannels(
    unsigned count, const Interrupt& interrupt, const std::function<void(const ChannelContext&)>& body,
    const std::function<void()>& on_failure = [] {});

// The same within one channel of others, with which they end.
void RunChannels(unsigned count, const ChannelContext& outer, const std::function<void(const ChannelContext&)>& body);

// Hands out the numbers 0..count-1, each once, to any thread.
class WorkQueue {
 public:
  explicit WorkQueue(std::uint64_t count) : count_(count) {}

  std::optional<std::uint64_t> Take() {
    const std::uint64_t item = next_.fetch_add(1, std::memory_order_relaxed);
    if (item >= count_) return std::nullopt;
    return item;
  }

 private:
  std::uint64_t count_;
  std::atomic<std::uint64_t> next_{0};
};

}  // namespace vmsave
