// Goes on with a guest that runs already, and whose memory somebody began to serve who is there no more.
#pragma once

#include "qemu/lazy_restore.h"
#include "qemu/serving_record.h"

namespace vmsave {

// QEMU tells what it has; the rest is served as RestoreLazily does. `options.run`: nothing leaves the guest running or
// paused, as it is. `events.on_begun` is not called. Checked before QEMU is given anything: that nobody serves it, that
// machine and RAM blocks are the image's, and that the guest was begun from the same save, as far as QEMU can tell.
// Throws Error; the guest is then as it was, or as Serving::WaitForEnd tells.
LazySummary RecoverLazily(const LazyTask& task);

// The same for a QEMU that may not answer, as its main thread itself waits for a page: what it cannot be asked is in
// the record. One of the task's spares is used up unless QEMU refuses it, and put back as soon as QEMU's main thread
// answers. Where there is none RecoverLazily is tried. A guest that turns out to have all of its memory is only let
// run, where it is to.
LazySummary RecoverKept(const LazyTask& task, const ServingRecord& record);

}  // namespace vmsave
