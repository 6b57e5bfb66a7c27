#include "serial.h"

#include "port.h"

namespace {

constexpr uint16_t kCom1 = 0x3f8;
constexpr uint16_t kInterruptEnable = kCom1 + 1;
constexpr uint16_t kLineControl = kCom1 + 3;
constexpr uint16_t kLineStatus = kCom1 + 5;

constexpr uint8_t kDivisorLatch = 0x80;
constexpr uint8_t kEightBits = 0x03;
constexpr uint8_t kTransmitterEmpty = 0x20;

}  // namespace

void InitSerial() {
  WritePort(kInterruptEnable, 0);
  WritePort(kLineControl, kDivisorLatch | kEightBits);
  WritePort(kCom1, 1);  // 115200 baud
  WritePort(kCom1 + 1, 0);
  WritePort(kLineControl, kEightBits);
}

void Write(char c) {
  while ((ReadPort(kLineStatus) & kTransmitterEmpty) == 0) {
  }
  WritePort(kCom1, static_cast<uint8_t>(c));
}

void Write(const char* text) {
  for (; *text != '\0'; ++text) Write(*text);
}

void Write(Text text) {
  for (size_t i = 0; i < text.size; ++i) Write(text.data[i]);
}

void Write(uint32_t number) {
  if (number >= 10) Write(number / 10);
  Write(static_cast<char>('0' + number % 10));
}

void Write(Hex number) {
  Write("0x");
  for (int shift = 28; shift >= 0; shift -= 4) Write("0123456789abcdef"[(number.value >> shift) & 15]);
}
