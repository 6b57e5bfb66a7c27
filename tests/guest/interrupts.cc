#include "interrupts.h"

#include "port.h"
#include "serial.h"

namespace {

constexpr uint16_t kMasterCommand = 0x20;
constexpr uint16_t kMasterData = 0x21;
constexpr uint16_t kSlaveCommand = 0xa0;
constexpr uint16_t kSlaveData = 0xa1;
constexpr uint8_t kEndOfInterrupt = 0x20;

constexpr uint8_t kFirstLineVector = 32;
constexpr uint8_t kVectors = kFirstLineVector + 16;
constexpr uint16_t kCodeSelector = 8;
constexpr uint16_t kPresentInterruptGate = 0x8e00;

struct Gate {
  uint16_t offset_low;
  uint16_t selector;
  uint16_t flags;
  uint16_t offset_high;
};

struct [[gnu::packed]] TablePointer {
  uint16_t limit;
  const Gate* base;
};

constinit Gate gates[kVectors] = {};

[[gnu::interrupt]] void OnFault(InterruptFrame*) {
  Print("fault\n");
  for (;;) asm volatile("cli; hlt");
}

// A spurious interrupt takes no acknowledgement.
[[gnu::interrupt]] void OnSpurious(InterruptFrame*) {}

void SetGate(uint8_t vector, InterruptHandler handler) {
  const auto offset = reinterpret_cast<uint32_t>(handler);
  gates[vector] = {static_cast<uint16_t>(offset), kCodeSelector, kPresentInterruptGate,
                   static_cast<uint16_t>(offset >> 16)};
}

// Moves the lines away from the vectors of the processor's own faults.
void RemapLines() {
  WritePort(kMasterCommand, 0x11);  // initialize, four words follow
  WritePort(kSlaveCommand, 0x11);
  WritePort(kMasterData, kFirstLineVector);
  WritePort(kSlaveData, kFirstLineVector + 8);
  WritePort(kMasterData, 1 << 2);  // the slave is at line 2
  WritePort(kSlaveData, 2);
  WritePort(kMasterData, 1);  // 8086 mode
  WritePort(kSlaveData, 1);
  WritePort(kMasterData, 0xff);
  WritePort(kSlaveData, 0xff);
}

}  // namespace

void InitInterrupts() {
  for (uint8_t vector = 0; vector < kVectors; ++vector) {
    SetGate(vector, vector < kFirstLineVector ? OnFault : OnSpurious);
  }
  const TablePointer pointer{sizeof gates - 1, gates};
  asm volatile("lidt %0" : : "m"(pointer), "m"(gates));
  RemapLines();
}

void EnableLine(uint8_t line, InterruptHandler handler) {
  SetGate(static_cast<uint8_t>(kFirstLineVector + line), handler);
  WritePort(kMasterData, static_cast<uint8_t>(ReadPort(kMasterData) & ~(1 << line)));
}

void AcknowledgeInterrupt() {
  WritePort(kMasterCommand, kEndOfInterrupt);
}
