#pragma once

#include <stdint.h>

// Starts the ticks; they come from the interval timer, so they go on by themselves after the guest was stopped.
void StartTimer(uint32_t tick_milliseconds);

// Halts the processor until a tick has passed since the last return; returns at once if it already has.
void WaitForTick();
