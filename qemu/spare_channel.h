// Sockets for migrations to go on with, whose other ends a QEMU was given ahead: once its main thread waits for a page
// that nobody serves, it can be given none (getfd is not executed out of band). What asks QEMU to go on
// (AppendPostcopyRecovery) lies in them already.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "format/postcopy.h"
#include "qemu/qmp_client.h"

namespace vmsave {

struct SpareChannel {
  std::string name;  // by which QEMU knows the other end
  FileDescriptor socket;
};

// Each is good for one attempt.
inline constexpr unsigned kSpareChannels = 4;

// `blocks` are the guest's.
std::vector<SpareChannel> HandSparesToQemu(QmpClient& qmp, std::span<const PostcopyBlock> blocks);
SpareChannel HandSpareToQemu(QmpClient& qmp, std::span<const PostcopyBlock> blocks, std::string name);

// For migrate-recover.
std::string UriOf(const SpareChannel& spare);

// Little is to stand before the answer to what the guest asks for next.
void SetSocketBuffer(const FileDescriptor& socket);

// Those that were not used, as far as they were handed over on this connection.
void CloseSpares(QmpClient& qmp);

}  // namespace vmsave
