// Restores a guest into a QEMU that waits for it. Start here for how a restore runs.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "qemu/qemu_process.h"
#include "qemu/qmp_client.h"
#include "reader/chunk_reader.h"
#include "reader/read_options.h"

namespace vmsave {

// How the guest's RAM gets into QEMU.
enum class RestoreWay {
  kMemory,   // it lies in a shared backend: vmsave reads the pages into it
  kNative,   // QEMU reads the image itself (mapped-ram)
  kMultifd,  // as a stream whose pages come over parallel channels beside it
  kStream,   // as the legacy stream
};

std::string_view RestoreWayName(RestoreWay way);

struct RestoreOptions {
  // Else the first that works, in the order above; but kNative, where nobody looks at a page's checksum, only for
  // images that have none, or where the caller has checked them or does not want it; and kMultifd only with more than
  // one channel.
  std::optional<RestoreWay> way;
  ReadOptions read;
  PageChecks checks = PageChecks::kOn;  // of pages that pass through this process
  bool pages_verified = false;          // all of them have been checked already
  std::optional<bool> run;              // else as the image says
};

struct RestoreSummary {
  RestoreWay way{};
  std::string why_not_faster;  // why an earlier way was not taken; empty where the first was
  ByteCount ram;
  ByteCount present;             // 0 where nobody counted: a sequential stream that went as it is
  bool pages_unchecked = false;  // the image has checksums of its pages, but QEMU read them itself
  std::chrono::duration<double> elapsed{};
  bool running = false;
};

// The guest is resumed only after QEMU reports that the load has completed, and only if it is to run. REQUIRES: QEMU
// waits with -incoming defer. Checked before QEMU is given anything: its state, machine type and RAM, and the way.
// Throws Error; a QEMU that was given a part is then not fit for use, and for the caller to end.
RestoreSummary RestoreGuest(QmpClient& qmp, const Image& image, const RestoreOptions& options, Progress& progress,
                            const Interrupt& interrupt);

// What can be told before QEMU is started: an image that no vmrestore can load, a command that already says -incoming,
// another machine type, another RAM size. Throws Error.
void CheckCommandFits(const Image& image, const CommandFacts& command);

}  // namespace vmsave
