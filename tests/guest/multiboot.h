#pragma once

#include <stdint.h>

// What a multiboot loader hands to a kernel, as far as this kernel wants it.

constexpr uint32_t kMultibootLoaderMagic = 0x2badb002;
constexpr uint32_t kMultibootHasCommandLine = 1 << 2;
constexpr uint32_t kMultibootHasMemoryMap = 1 << 6;
constexpr uint32_t kMultibootAvailable = 1;

struct MultibootInfo {
  uint32_t flags;
  uint32_t memory_lower;
  uint32_t memory_upper;
  uint32_t boot_device;
  const char* command_line;
  uint32_t modules_count;
  uint32_t modules;
  uint32_t symbols[4];
  uint32_t memory_map_size;
  uint32_t memory_map;
};

struct [[gnu::packed]] MultibootMemory {
  uint32_t size;  // of the rest of this entry
  uint64_t begin;
  uint64_t length;
  uint32_t type;
};
