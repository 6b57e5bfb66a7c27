#pragma once

#include <stdint.h>

// What filled pages contain. A page names its seed, its address and its generation, followed by words that depend on
// all three, so that no page passes for another, nor for an earlier or later state of itself.
class Pattern {
 public:
  Pattern(uint32_t seed, uint32_t fill_percent) : seed_(seed), fill_percent_(fill_percent) {}

  // Whether the page at `address` is one to fill. Runs of 16 pages are filled or not as a whole, except that in every
  // fourth run, on average, each page is decided on its own.
  bool Selects(uint32_t address) const;

  void Fill(uint32_t address, uint32_t generation) const;

  // The address of the first word that is not as Fill() writes it; 0 if there is none.
  uint32_t FindMismatch(uint32_t address, uint32_t generation) const;

  // The generation named by the page at `address`.
  static uint32_t GenerationAt(uint32_t address);

 private:
  bool Chance(uint32_t key) const;

  // The first word after the header.
  uint32_t FirstWord(uint32_t address, uint32_t generation) const;

  uint32_t seed_;
  uint32_t fill_percent_;
};
