#include "timer.h"

#include "interrupts.h"
#include "port.h"

namespace {

constexpr uint8_t kTimerLine = 0;
constexpr uint16_t kChannel0 = 0x40;
constexpr uint16_t kCommand = 0x43;
constexpr uint8_t kChannel0RateGenerator = 0x34;

constexpr uint32_t kCountsPerMillisecond = 1193;
constexpr uint32_t kLongestPeriodMilliseconds = 50;  // the counter has 16 bits

constinit uint32_t interrupts_per_tick = 0;
constinit volatile uint32_t interrupts_since_tick = 0;

[[gnu::interrupt]] void OnTimer(InterruptFrame*) {
  interrupts_since_tick = interrupts_since_tick + 1;
  AcknowledgeInterrupt();
}

}  // namespace

void StartTimer(uint32_t tick_milliseconds) {
  interrupts_per_tick = (tick_milliseconds + kLongestPeriodMilliseconds - 1) / kLongestPeriodMilliseconds;
  const uint32_t count = kCountsPerMillisecond * tick_milliseconds / interrupts_per_tick;
  WritePort(kCommand, kChannel0RateGenerator);
  WritePort(kChannel0, static_cast<uint8_t>(count));
  WritePort(kChannel0, static_cast<uint8_t>(count >> 8));
  EnableLine(kTimerLine, OnTimer);
  asm volatile("sti" : : : "memory");
}

void WaitForTick() {
  asm volatile("cli" : : : "memory");
  while (interrupts_since_tick < interrupts_per_tick) {
    // sti takes effect after the next instruction, so no interrupt is lost between the comparison and hlt.
    asm volatile("sti; hlt; cli" : : : "memory");
  }
  interrupts_since_tick = 0;
  asm volatile("sti" : : : "memory");
}
