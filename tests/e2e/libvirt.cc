#include "tests/e2e/libvirt.h"

#include <fmt/format.h>
#include <signal.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

std::string MemoryBacking(Ram ram) {
  constexpr const char* kShared = "<memoryBacking><source type='{}'/><access mode='shared'/></memoryBacking>";
  switch (ram) {
    case Ram::kPrivate:
      return "";
    case Ram::kFile:
      return fmt::format(kShared, "file");
    case Ram::kMemfd:
      return fmt::format(kShared, "memfd");
    case Ram::kShm:
    case Ram::kTwoBlocks:
    case Ram::kTwoMemfds:
    case Ram::kHugePages:
      break;
  }
  throw std::invalid_argument("no domain has such RAM");
}

std::vector<std::string> DaemonCommand(const std::string& launcher, const ScratchDirectory& directory,
                                       const std::vector<std::string>& settings) {
  std::vector<std::string> command{launcher, "daemon", directory.path()};
  command.insert(command.end(), settings.begin(), settings.end());
  return command;
}

std::string WithoutLineEnd(const std::string& text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

}  // namespace

std::optional<std::string> LibvirtPath(WhichLibvirt which) {
  const char* path = std::getenv(which == WhichLibvirt::kOld ? "VMSAVE_LIBVIRT_OLD" : "VMSAVE_LIBVIRT_NEW");
  if (path == nullptr || *path == '\0') return std::nullopt;
  return path;
}

std::optional<std::string> WhyNoLibvirt() {
  for (const WhichLibvirt which : {WhichLibvirt::kOld, WhichLibvirt::kNew}) {
    const std::optional<std::string> launcher = LibvirtPath(which);
    if (!launcher) return "VMSAVE_LIBVIRT_OLD and VMSAVE_LIBVIRT_NEW do not name both libvirts";
    const Outcome probe = RunToEnd({*launcher, "probe"});
    if (probe.status != 0) return "this machine does not let libvirt run in namespaces of its own: " + probe.err;
  }
  return std::nullopt;
}

std::string DomainXml(const Guest& guest) {
  const GuestShape& shape = guest.shape();
  return fmt::format(
      R"(<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>6b3f1a52-9d0c-4e57-8a41-2c7d5e9f0b13</uuid>
  <memory unit='KiB'>{memory}</memory>
  {backing}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel>
    <cmdline>{options}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>{qemu}</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{log}' append='on'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-qmp'/>
    <qemu:arg value='unix:{qmp},server=on,wait=off'/>
  </qemu:commandline>
</domain>
)",
      fmt::arg("name", kGuestName), fmt::arg("memory", shape.memory_kib), fmt::arg("backing", MemoryBacking(shape.ram)),
      fmt::arg("machine", shape.machine), fmt::arg("kernel", TEST_GUEST_KERNEL), fmt::arg("options", shape.options),
      fmt::arg("qemu", *QemuPath(shape.qemu)), fmt::arg("log", guest.log_path()), fmt::arg("qmp", guest.qmp_path()));
}

Libvirt::Libvirt(WhichLibvirt which, const std::vector<std::string>& settings)
    : launcher_(*LibvirtPath(which)), daemon_(DaemonCommand(launcher_, directory_, settings)) {
  WaitUntil("libvirt's answer", [this] {
    if (daemon_.Ended()) throw std::runtime_error("libvirt ended: " + daemon_.err());
    return Virsh({"list"}).status == 0;
  });
}

Libvirt::~Libvirt() {
  // The first process of the namespace takes all others with it, and the launcher waits for that.
  std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", daemon_.pid()));
  for (pid_t pid = 0; children >> pid;) ::kill(pid, SIGKILL);
  daemon_.Wait();
}

Outcome Libvirt::Virsh(const std::vector<std::string>& arguments) const {
  std::vector<std::string> command{launcher_, "virsh", directory_.path()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return RunToEnd(command);
}

void Libvirt::Boot(const Guest& guest) const {
  const std::string path = directory_.Path("domain.xml");
  WriteWholeFile(path, DomainXml(guest));
  const Outcome created = Virsh({"create", path});
  if (created.status != 0) throw std::runtime_error("libvirt does not start the guest: " + created.err);
  guest.console().WaitForTicks(2);
}

std::string Libvirt::MigratableXml() const {
  return Virsh({"dumpxml", "--migratable", kGuestName}).out;
}

std::string Libvirt::State() const {
  return WithoutLineEnd(Virsh({"domstate", kGuestName}).out);
}

void Libvirt::WaitForEnd() const {
  WaitUntil("libvirt's notice of QEMU's end", [&] { return State().empty(); });
}

}  // namespace vmsave
