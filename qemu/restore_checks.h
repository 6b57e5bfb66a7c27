// Whether an image and a QEMU fit each other, told before QEMU is given anything. An image that does
// not fit is not damaged: it may fit another QEMU.
#pragma once

#include <vector>

#include "qemu/guest_facts.h"
#include "qemu/guest_ram.h"
#include "qemu/qemu_process.h"
#include "qemu/qmp_client.h"
#include "reader/image.h"

namespace vmsave {

// What a command tells before QEMU is started: it says -incoming already, has another machine type, another RAM size.
// Throws Error{kUsage} for the first, Error{kFailed}.
void CheckCommandFits(const Image& image, const CommandFacts& command);

// QEMU waits for a guest, and has the machine type of the saved one. Throws Error{kFailed}.
void CheckQemuFits(const Image& image, QmpClient& qmp, const GuestFacts& guest);

// Each backend of QEMU is a RAM block of the image, of the same length: one that nothing is loaded into would hold what
// it held before. Throws Error{kFailed}.
void CheckBackendsFit(const Image& image, const std::vector<MappedBackend>& backends);

}  // namespace vmsave
