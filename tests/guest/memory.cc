#include <stddef.h>

// The functions that the compiler calls on its own account.

extern "C" void* memset(void* to, int value, size_t size) {
  void* end = to;
  asm volatile("rep stosb" : "+D"(end), "+c"(size) : "a"(value) : "memory");
  return to;
}

extern "C" void* memcpy(void* to, const void* from, size_t size) {
  void* end = to;
  asm volatile("rep movsb" : "+D"(end), "+S"(from), "+c"(size) : : "memory");
  return to;
}
