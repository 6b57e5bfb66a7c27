#pragma once

#include <stdint.h>

struct Options {
  uint32_t fill = 50;
  uint32_t seed = 1;
  uint32_t tick = 100;
  uint32_t passes = 10;
  uint32_t dirty = 0;
  uint32_t rezero = 0;
  bool check_unfilled = true;
};

// Reads a kernel command line, whose first word names the kernel. Words it cannot use are reported on serial.
Options ParseOptions(const char* command_line);
