#include "qemu/spare_channel.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include "qemu/migration_channel.h"
#include "qemu/socket_sink.h"

namespace vmsave {
namespace {

// What has been written stands before the answer to the next question.
constexpr int kSocketBufferBytes = 128 << 10;

std::string NameOf(unsigned number) {
  return fmt::format("vmsave-spare-{}", number);
}

}  // namespace

std::vector<SpareChannel> HandSparesToQemu(QmpClient& qmp, std::span<const PostcopyBlock> blocks) {
  std::vector<SpareChannel> spares;
  for (unsigned i = 0; i < kSpareChannels; ++i) spares.push_back(HandSpareToQemu(qmp, blocks, NameOf(i)));
  return spares;
}

SpareChannel HandSpareToQemu(QmpClient& qmp, std::span<const PostcopyBlock> blocks, std::string name) {
  SpareChannel spare{std::move(name), {}};
  spare.socket = HandSocketToQemu(qmp, spare.name);
  SetSocketBuffer(spare.socket);
  ByteWriter out;
  AppendPostcopyRecovery(out, blocks);
  const Interrupt never;
  SocketSink(spare.socket, never).Write(out.Take());
  return spare;
}

std::string UriOf(const SpareChannel& spare) {
  return "fd:" + spare.name;
}

void SetSocketBuffer(const FileDescriptor& socket) {
  ::setsockopt(socket.number(), SOL_SOCKET, SO_SNDBUF, &kSocketBufferBytes, sizeof(kSocketBufferBytes));
}

void CloseSpares(QmpClient& qmp) {
  for (unsigned i = 0; i < kSpareChannels; ++i) {
    try {
      qmp.Execute("closefd", {{"fdname", NameOf(i)}});
    } catch (const QmpError&) {
      continue;
    }
  }
}

}  // namespace vmsave
