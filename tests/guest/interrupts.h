#pragma once

#include <stdint.h>

struct InterruptFrame;

using InterruptHandler = void (*)(InterruptFrame*);

// Faults stop the guest with a message; all interrupt lines stay masked until enabled.
void InitInterrupts();

void EnableLine(uint8_t line, InterruptHandler handler);

// To be called by the handler of a line below 8.
void AcknowledgeInterrupt();
