// What a guest did when QEMU took its device state.
#pragma once

#include <optional>
#include <span>
#include <string>

namespace vmsave {

// QEMU's name for it: "running", "paused", "io-error", ... As it was just before a migration stopped the guest
// (section "globalstate", QEMU migration/global_state.c). Nothing where the device state does not tell, as that of
// machine types before 2.4, or tells different things.
std::optional<std::string> RunStateIn(std::span<const std::byte> device_state);

}  // namespace vmsave
