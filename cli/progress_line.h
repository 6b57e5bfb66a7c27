// The progress of long work in words: a line with a bar, or an object for scripts.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "format/units.h"
#include "io/progress.h"

namespace vmsave {

struct PhaseProgress {
  std::string_view phase;
  ByteCount done;
  ByteCount total;  // 0: the phase has nothing to count
  ByteCount moved;  // of `done`, in the last `seconds`
  double seconds = 0;
  std::optional<Progress::Demand> demand{};  // of a guest that runs already
};

// Shorter than `columns`, so that a terminal of that width does not wrap it: phase and percentage, then what there is
// room for of bar, bytes, rate and time left. Rate and time left only once the phase has run for 0.2 s.
std::string ProgressLine(const PhaseProgress& progress, std::size_t columns);

// What of a progress is worth a line that stays: each phase as it begins, then each further tenth of it.
class ProgressLog {
 public:
  // Without a bar; empty where there is nothing new to tell.
  std::string Next(const PhaseProgress& progress);

 private:
  std::string_view phase_;
  unsigned tenths_ = 0;  // told of it
};

// {"progress": ...}: "bytes_per_second" is 0 and "eta_seconds" null while they are not known.
nlohmann::json ProgressJson(const PhaseProgress& progress);

}  // namespace vmsave
