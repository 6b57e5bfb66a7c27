// Sockets for migrations to go on with, whose other ends a QEMU was given ahead: once its main thread waits for a page
// that nobody serves, it can be given none (getfd is not executed out of band).
#pragma once

#include <string>
#include <vector>

#include "qemu/qmp_client.h"

namespace vmsave {

struct SpareChannel {
  std::string name;  // by which QEMU knows the other end
  FileDescriptor socket;
};

// Each is good for one attempt.
inline constexpr unsigned kSpareChannels = 4;

std::vector<SpareChannel> HandSparesToQemu(QmpClient& qmp);
SpareChannel HandSpareToQemu(QmpClient& qmp, std::string name);

// Those that were not used, as far as they were handed over on this connection.
void CloseSpares(QmpClient& qmp);

}  // namespace vmsave
