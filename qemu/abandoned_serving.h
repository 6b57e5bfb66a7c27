// A guest that runs, or is to, whose vmrestore has ended before all of its memory was there.
#pragma once

#include <string>
#include <vector>

#include "format/postcopy.h"
#include "qemu/kept_serving.h"
#include "reader/image.h"

namespace vmsave {

// The blocks of LazyBegin, as they were recorded.
std::vector<PostcopyBlock> PostcopyBlocksOf(const ServingRecord& serving, const Image& image);

// Of the guard's process.
class AbandonedServing {
 public:
  // `serving.record` has `serving`.
  explicit AbandonedServing(KeptServing serving) : kept_(std::move(serving)) {}

  bool is_held() const { return kept_.qmp.valid(); }

  // REQUIRES: is_held(). Serves the guest until it has all of its memory, or has ended. Returns what became of it, for
  // the operator; empty where there was nothing to do. Where it could not go on the guest is needs_operator() from then
  // on.
  std::string ServeOn() noexcept;

  bool needs_operator() const { return needs_operator_; }

  // REQUIRES: is_held(). Keeps what vmrestore --recover needs, for as long as QEMU is there.
  KeptEnd Keep() const;

 private:
  std::string TryToServeOn();

  KeptServing kept_;
  bool needs_operator_ = true;
};

}  // namespace vmsave
