#pragma once

#include <stddef.h>
#include <stdint.h>

// Output on the first serial port.

struct Hex {
  uint32_t value;
};

struct Text {
  const char* data;
  size_t size;
};

void InitSerial();

void Write(char c);
void Write(const char* text);
void Write(Text text);
void Write(uint32_t number);
void Write(Hex number);

template <typename... Parts>
void Print(Parts... parts) {
  (Write(parts), ...);
}
