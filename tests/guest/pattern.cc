#include "pattern.h"

#include "ram_map.h"

namespace {

constexpr uint32_t kRunShift = 4;
constexpr uint32_t kRunSalt = 0x52554e53;
constexpr uint32_t kPageSalt = 0x50414745;
constexpr uint32_t kMagic = 0x65677076;
constexpr uint32_t kMagicWord = 0;
constexpr uint32_t kSeedWord = 1;
constexpr uint32_t kAddressWord = 2;
constexpr uint32_t kGenerationWord = 3;
constexpr uint32_t kHeaderWords = 4;

// Words handled between two branches, which are what costs time under emulation.
constexpr uint32_t kStride = 4;
static_assert((kWordsPerPage - kHeaderWords) % kStride == 0);

// Every bit of the result depends on every bit of both arguments.
constexpr uint32_t Mix(uint32_t a, uint32_t b) {
  uint32_t x = a * 0x9e3779b1 ^ b;
  x = (x ^ x >> 16) * 0x85ebca6b;
  x = (x ^ x >> 13) * 0xc2b2ae35;
  return x ^ x >> 16;
}

uint32_t AddressOf(const uint32_t* word) {
  return reinterpret_cast<uint32_t>(word);
}

constexpr uint32_t NextWord(uint32_t word) {
  return word * 1664525 + 1013904223;
}

// The first word that breaks the sequence starting with `value`; there must be one.
const uint32_t* FindWordMismatch(const uint32_t* word, uint32_t value) {
  for (; *word == value; ++word) value = NextWord(value);
  return word;
}

}  // namespace

bool Pattern::Chance(uint32_t key) const {
  return (key >> 16) * 100 >> 16 < fill_percent_;
}

bool Pattern::Selects(uint32_t address) const {
  const uint32_t page = address >> kPageShift;
  const uint32_t run_key = Mix(Mix(seed_, kRunSalt), page >> kRunShift);
  const bool is_scattered = (run_key & 3) == 0;
  return Chance(is_scattered ? Mix(Mix(seed_, kPageSalt), page) : run_key);
}

void Pattern::Fill(uint32_t address, uint32_t generation) const {
  auto* const page = reinterpret_cast<uint32_t*>(address);
  page[kMagicWord] = kMagic;
  page[kSeedWord] = seed_;
  page[kAddressWord] = address;
  page[kGenerationWord] = generation;
  uint32_t value = FirstWord(address, generation);
#pragma GCC unroll 4
  for (uint32_t i = kHeaderWords; i < kWordsPerPage; ++i) {
    page[i] = value;
    value = NextWord(value);
  }
}

uint32_t Pattern::FindMismatch(uint32_t address, uint32_t generation) const {
  const auto* const page = reinterpret_cast<const uint32_t*>(address);
  if (page[kMagicWord] != kMagic) return AddressOf(&page[kMagicWord]);
  if (page[kSeedWord] != seed_) return AddressOf(&page[kSeedWord]);
  if (page[kAddressWord] != address) return AddressOf(&page[kAddressWord]);
  if (page[kGenerationWord] != generation) return AddressOf(&page[kGenerationWord]);
  uint32_t value = FirstWord(address, generation);
  for (uint32_t i = kHeaderWords; i < kWordsPerPage; i += kStride) {
    uint32_t next = value;
    uint32_t difference = 0;
#pragma GCC unroll 4
    for (uint32_t j = 0; j < kStride; ++j) {
      difference |= page[i + j] ^ next;
      next = NextWord(next);
    }
    if (difference != 0) return AddressOf(FindWordMismatch(&page[i], value));
    value = next;
  }
  return 0;
}

uint32_t Pattern::GenerationAt(uint32_t address) {
  return reinterpret_cast<const uint32_t*>(address)[kGenerationWord];
}

uint32_t Pattern::FirstWord(uint32_t address, uint32_t generation) const {
  return Mix(Mix(seed_, address), generation);
}
