#pragma once

#include <stdint.h>

#include "pages.h"

// Checks all pages over and over, a slice at a time.
class Patrol {
 public:
  Patrol(const Pages& pages, uint32_t slices) : pages_(pages), slices_(slices) {}

  // Checks the next slice; returns the first thing found in it.
  Finding CheckSlice();

  // Whether the last slice checked was the last of a pass.
  bool IsPassComplete() const { return slice_ == 0; }
  // Whether all of the pass was in order so far.
  bool IsPassOk() const { return pass_ok_; }

 private:
  const Pages& pages_;
  uint32_t slices_;
  uint32_t slice_ = 0;
  bool pass_ok_ = true;
};
