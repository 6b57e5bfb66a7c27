#include "pages.h"

#include <stddef.h>

extern "C" void* memset(void* to, int value, size_t size);

namespace {

// The address of the first word that is not zero; 0 if there is none.
uint32_t FindNonzero(uint32_t address) {
  constexpr uint32_t kStride = 8;
  const auto* word = reinterpret_cast<const uint32_t*>(address);
  const auto* const end = word + kWordsPerPage;
  while (word != end && (word[0] | word[1] | word[2] | word[3] | word[4] | word[5] | word[6] | word[7]) == 0) {
    word += kStride;
  }
  while (word != end && *word == 0) ++word;
  return word == end ? 0 : reinterpret_cast<uint32_t>(word);
}

void Zero(uint32_t address) {
  memset(reinterpret_cast<void*>(address), 0, kPageSize);
}

}  // namespace

Pages::Pages(const RamMap& ram, const Options& options)
    : ram_(ram), pattern_(options.seed, options.fill), check_unfilled_(options.check_unfilled) {
  const auto table_size = static_cast<uint32_t>(ram_.pages() * sizeof(uint32_t));
  generations_ = reinterpret_cast<uint32_t*>(ram_.Take((table_size + kPageSize - 1) >> kPageShift));
}

uint32_t Pages::CountSelected() const {
  uint32_t selected = 0;
  for (uint32_t i = 0; i < count(); ++i) selected += IsSelected(i);
  return selected;
}

void Pages::Init() {
  memset(generations_, 0, count() * sizeof(uint32_t));
  for (uint32_t i = 0; i < count(); ++i) {
    const uint32_t address = ram_.Address(i);
    if (pattern_.Selects(address)) {
      pattern_.Fill(address, 0);
    } else if (check_unfilled_ && FindNonzero(address) != 0) {
      // Only what the firmware left behind is written, so that untouched RAM stays unallocated.
      Zero(address);
    }
  }
}

void Pages::Renew(uint32_t index) {
  const uint32_t generation = (generations_[index] & ~kBlank) + 1;
  generations_[index] = generation;
  pattern_.Fill(ram_.Address(index), generation);
}

void Pages::Blank(uint32_t index) {
  generations_[index] |= kBlank;
  Zero(ram_.Address(index));
}

Finding Pages::Check(uint32_t index) const {
  const uint32_t address = ram_.Address(index);
  const bool is_selected = pattern_.Selects(address);
  if (!is_selected && !check_unfilled_) return {};

  const uint32_t state = is_selected ? generations_[index] : kBlank;
  const uint32_t mismatch = FindMismatch(address, state);
  if (mismatch == 0) return {};

  const uint32_t found = Pattern::GenerationAt(address);
  if (pattern_.FindMismatch(address, found) != 0) return {Finding::Kind::kCorrupt, mismatch};
  return {Finding::Kind::kStale, address, found, state & kBlank ? kBlank : state};
}

uint32_t Pages::FindMismatch(uint32_t address, uint32_t state) const {
  return state & kBlank ? FindNonzero(address) : pattern_.FindMismatch(address, state);
}
