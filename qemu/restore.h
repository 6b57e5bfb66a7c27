// Restores a guest into a QEMU that waits for it. Start here for how a restore runs.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "qemu/qmp_client.h"
#include "qemu/restore_way.h"

namespace vmsave {

class RestoreGuard;

struct RestoreOptions {
  RestoreWish wish;
  std::optional<bool> run;  // else as the image says
};

struct RestoreSummary {
  RestoreWay way{};
  std::string why_not_faster;  // why an earlier way was not taken; empty where the first was
  ByteCount ram;
  std::optional<ByteCount> present;  // nothing where nobody counted: a sequential stream that went as it is
  bool pages_unchecked = false;      // the image has checksums of its pages, but QEMU read them itself
  std::chrono::duration<double> elapsed{};
  bool running = false;
};

// The guest is resumed only after QEMU reports that the load has completed, and only if it is to run. REQUIRES:
// CheckWish has passed. Checked before QEMU is given anything: that it waits for a guest, its machine type and RAM, and
// the way. `guard`, where there is one, finishes what is left once the guest is loaded, should this process be killed.
// Throws Error; a QEMU that was given a part is then not fit for use, and for the caller to end.
RestoreSummary RestoreGuest(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
                            const Interrupt& interrupt, RestoreGuard* guard = nullptr);

}  // namespace vmsave
