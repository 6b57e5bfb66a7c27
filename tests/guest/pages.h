#pragma once

#include <stdint.h>

#include "options.h"
#include "pattern.h"
#include "ram_map.h"

struct Finding {
  enum class Kind { kOk, kCorrupt, kStale };

  Kind kind = Kind::kOk;
  uint32_t address = 0;
  // If stale, the generations; kBlank stands for a zero page.
  uint32_t found = 0;
  uint32_t expected = 0;
};

// All RAM looked after: selected pages hold the pattern, or zeros while blank; the others hold zeros.
class Pages {
 public:
  static constexpr uint32_t kBlank = uint32_t{1} << 31;

  // Takes the table of generations from `ram`, which is not to be empty.
  Pages(const RamMap& ram, const Options& options);

  uint32_t count() const { return ram_.pages(); }
  uint32_t regions() const { return ram_.regions(); }
  uint32_t CountSelected() const;

  bool IsSelected(uint32_t index) const { return pattern_.Selects(ram_.Address(index)); }

  // Gives every page its first contents.
  void Init();

  // Both are for selected pages.
  void Renew(uint32_t index);
  void Blank(uint32_t index);

  Finding Check(uint32_t index) const;

 private:
  // `state` is a generation or kBlank.
  uint32_t FindMismatch(uint32_t address, uint32_t state) const;

  RamMap ram_;
  Pattern pattern_;
  bool check_unfilled_;
  uint32_t* generations_;  // with kBlank set while a page is blank
};
