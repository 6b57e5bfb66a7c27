#pragma once

#include <stdint.h>

#include "pages.h"

// Keeps changing selected pages, in windows that move through RAM.
class Churn {
 public:
  Churn(Pages* pages, const Options& options);

  // Renews the next `dirty` pages; renews the pages blanked by the call before and blanks the next `rezero` pages.
  void Step();

 private:
  // Applies `change` to the next `count` selected pages starting at `index`; returns where the following ones start.
  uint32_t Walk(uint32_t index, uint32_t count, void (Pages::*change)(uint32_t));

  Pages* pages_;
  uint32_t dirty_;
  uint32_t rezero_;
  uint32_t dirty_index_ = 0;
  uint32_t blank_index_;
  uint32_t blank_ = 0;
};
