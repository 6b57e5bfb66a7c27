#include "qemu/spare_channel.h"

#include <fmt/format.h>

#include "qemu/migration_channel.h"

namespace vmsave {
namespace {

std::string NameOf(unsigned number) {
  return fmt::format("vmsave-spare-{}", number);
}

}  // namespace

std::vector<SpareChannel> HandSparesToQemu(QmpClient& qmp) {
  std::vector<SpareChannel> spares;
  for (unsigned i = 0; i < kSpareChannels; ++i) spares.push_back(HandSpareToQemu(qmp, NameOf(i)));
  return spares;
}

SpareChannel HandSpareToQemu(QmpClient& qmp, std::string name) {
  FileDescriptor socket = HandSocketToQemu(qmp, name);
  return {std::move(name), std::move(socket)};
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
