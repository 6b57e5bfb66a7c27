#include "patrol.h"

Finding Patrol::CheckSlice() {
  if (slice_ == 0) pass_ok_ = true;
  const uint32_t begin = pages_.count() * slice_ / slices_;
  const uint32_t end = pages_.count() * (slice_ + 1) / slices_;
  slice_ = (slice_ + 1) % slices_;

  Finding first;
  for (uint32_t i = begin; i < end && first.kind == Finding::Kind::kOk; ++i) first = pages_.Check(i);
  if (first.kind != Finding::Kind::kOk) pass_ok_ = false;
  return first;
}
