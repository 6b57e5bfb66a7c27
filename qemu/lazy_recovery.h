// Goes on with a guest that runs already, and whose memory somebody began to serve who is there no more.
#pragma once

#include "qemu/lazy_restore.h"

namespace vmsave {

// QEMU tells what it has; the rest is served as RestoreLazily does. `options.run`: nothing leaves the guest running or
// paused, as it is. `events.on_begun` is not called, the others once the serving goes on. Checked before QEMU is told
// anything: that nobody serves it, that machine and RAM blocks are the image's, and that the guest was begun from the
// same save, as far as QEMU can tell. Throws Error; the guest is then as it was, or as Serving::WaitForEnd tells.
LazySummary RecoverLazily(QmpClient& qmp, const Image& image, const LazyOptions& options, const LazyEvents& events,
                          Progress& progress, const Interrupt& interrupt);

// The same for a QEMU that may not answer, as its main thread itself waits for a page. REQUIRES: `blocks` and `spare`
// are those of LazyEvents::on_begin, `image` is the guest's; nobody serves it.
LazySummary RecoverUnanswered(QmpClient& qmp, const Image& image, std::vector<PostcopyBlock> blocks,
                              FileDescriptor spare, const LazyOptions& options, const LazyEvents& events,
                              Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
