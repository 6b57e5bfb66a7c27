// Restores a guest that runs before its RAM is read. Start here for how that goes on.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qemu/lazy_checks.h"
#include "qemu/serving.h"
#include "qemu/spare_channel.h"

namespace vmsave {

struct LazyOptions {
  ServeOptions serve;
  std::optional<bool> run;         // else as the image says
  std::deque<WorkChunk> expected;  // by the guest: read before the rest
};

// How it was begun.
struct LazyStart {
  std::chrono::duration<double> elapsed{};  // until the guest ran, or stood paused
  bool running = false;
};

struct LazySummary {
  ByteCount ram;
  ByteCount present;
  LazyStart start;
  std::chrono::duration<double> elapsed{};  // until all of it was there
  ServingOutcome outcome;
  std::string unfinished{};  // what was not put back in a QEMU that has all of it, and why
};

struct LazyBegin {
  std::optional<bool> run;  // whether the guest is to run; nothing leaves it as it is
  const std::vector<PostcopyBlock>& blocks;
};

// What the caller has to do with it: somebody else is to be able to go on when this process is killed, although QEMU's
// main thread waits for a page itself, and answers nothing until it has that.
struct LazyEvents {
  // More spares, which are in the task as well.
  std::function<void(std::span<const SpareChannel>)> on_spares = [](std::span<const SpareChannel>) {};
  // QEMU is going to be given the devices, or to be served on: the guest may run, or is to.
  std::function<void(const LazyBegin&)> on_begin = [](const LazyBegin&) {};
  std::function<void()> on_begun = [] {};  // from now on the guest lives: nobody is to end its QEMU
  // QEMU did not let it run (a disk is locked by another, say): it never has.
  std::function<void()> on_refused = [] {};
  std::function<void(const LazyStart&)> on_running = [](const LazyStart&) {};
  // Nobody else is to hold that spare any more: QEMU would not see this process end.
  std::function<void(const std::string& name)> on_spare_used = [](const std::string&) {};
  ServingEvents serving;
};

// Keeps references.
struct LazyTask {
  QmpClient& qmp;
  std::vector<SpareChannel>& spares;  // those of that connection
  const Image& image;
  const LazyOptions& options;
  const LazyEvents& events;
  Progress& progress;
  const Interrupt& interrupt;
};

// REQUIRES: RefuseNeverLazy has passed, and WhyNotLazy told no reason. Checked before QEMU is given anything: as for
// RestoreGuest. Throws Error; before on_begun QEMU is then not fit for use, and for the caller to end. Afterwards as
// Serving::WaitForEnd.
LazySummary RestoreLazily(const LazyTask& task);

// What a recovery does just so.

// QEMU has all pages: waits until it has settled down, and takes back what was set. What fails is of no concern to the
// guest: it is returned.
std::string FinishLazily(QmpClient& qmp);

// `summary` with what the image tells.
LazySummary WithSizes(LazySummary summary, const Image& image);

}  // namespace vmsave
