#include "io/channels.h"

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace vmsave {

bool ChannelContext::GoOn() const {
  if (failed_.load(std::memory_order_relaxed)) return false;
  interrupt_.Check();
  return true;
}

void RunChannels(unsigned count, const Interrupt& interrupt, const std::function<void(const ChannelContext&)>& body) {
  std::atomic<bool> failed = false;
  std::mutex mutex;
  std::exception_ptr first_failure;
  {
    std::vector<std::jthread> threads;
    threads.reserve(count);
    for (unsigned channel = 0; channel < count; ++channel) {
      threads.emplace_back([&, channel] {
        try {
          body(ChannelContext(channel, failed, interrupt));
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (!first_failure) first_failure = std::current_exception();
          failed.store(true, std::memory_order_relaxed);
        }
      });
    }
  }
  if (first_failure) std::rethrow_exception(first_failure);
}

}  // namespace vmsave
