// Interrupts for tests: one that ends a test which hangs, and one that came already.
#pragma once

#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <chrono>

#include "io/interrupt.h"

namespace vmsave {

// Comes when no test that passes is still running.
inline Interrupt InterruptOfHangingTest() {
  constexpr std::chrono::seconds kPatience{120};
  FileDescriptor timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timer");
  itimerspec when{};
  when.it_value.tv_sec = kPatience.count();
  ::timerfd_settime(timer.number(), 0, &when, nullptr);
  return Interrupt(std::move(timer));
}

inline Interrupt RequestedInterrupt() {
  return Interrupt(FileDescriptor(::eventfd(1, EFD_CLOEXEC), "eventfd"));
}

}  // namespace vmsave
