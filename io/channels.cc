#include "io/channels.h"

#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace vmsave {

bool ChannelContext::GoOn() const {
  if (failed_.load(std::memory_order_relaxed) || (outer_ != nullptr && !outer_->GoOn())) return false;
  interrupt_.Check();
  return true;
}

void ChannelContext::EndWithOthers() const {
  if (!GoOn()) throw Error(ErrorKind::kFailed, "a channel ends", "another one has failed");
}

namespace {

void Run(unsigned count, const Interrupt& interrupt, const ChannelContext* outer,
         const std::function<void(const ChannelContext&)>& body, const std::function<void()>& on_failure) {
  std::atomic<bool> failed = false;
  std::mutex mutex;
  std::exception_ptr first_failure;
  const auto keep_failure = [&](std::exception_ptr failure) {
    const std::lock_guard lock(mutex);
    if (first_failure) return;
    first_failure = std::move(failure);
    failed.store(true, std::memory_order_relaxed);
    on_failure();
  };
  const auto run = [&](unsigned channel) {
    try {
      body(ChannelContext(channel, failed, interrupt, outer));
    } catch (...) {
      keep_failure(std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(count);
    try {
      for (unsigned channel = 0; channel < count; ++channel) threads.emplace_back(run, channel);
    } catch (const std::system_error& error) {
      keep_failure(std::make_exception_ptr(
          Error::FromErrno("cannot start a channel's thread", error.code().value(), "use fewer with --parallel")));
    }
  }
  if (first_failure) std::rethrow_exception(first_failure);
}

}  // namespace

void RunChannels(unsigned count, const Interrupt& interrupt, const std::function<void(const ChannelContext&)>& body,
                 const std::function<void()>& on_failure) {
  Run(count, interrupt, nullptr, body, on_failure);
}

void RunChannels(unsigned count, const ChannelContext& outer, const std::function<void(const ChannelContext&)>& body) {
  Run(count, outer.interrupt(), &outer, body, [] {});
}

}  // namespace vmsave
