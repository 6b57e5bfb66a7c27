// A libvirt of the test's own, which runs the test guest and exchanges images with the programs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/e2e/guest.h"
#include "tests/e2e/program_run.h"
#include "tests/scratch_directory.h"

namespace vmsave {

enum class WhichLibvirt { kOld, kNew };

// The launcher (tests/get-libvirts) from VMSAVE_LIBVIRT_OLD or VMSAVE_LIBVIRT_NEW; nothing where it is not set.
std::optional<std::string> LibvirtPath(WhichLibvirt which);

// Nothing where both libvirts run here.
std::optional<std::string> WhyNoLibvirt();

// The domain kGuestName that stands for `guest`: the same devices and RAM as guest.Command(), its log, and its QMP
// socket beside libvirt's own. RAM is private, or whole in a file or a memfd.
std::string DomainXml(const Guest& guest);

// A daemon without rights over the machine, which knows no domain at first. The destructor kills it, and the guests
// that it has started.
class Libvirt {
 public:
  // `settings` are lines of its qemu.conf.
  explicit Libvirt(WhichLibvirt which, const std::vector<std::string>& settings = {});
  Libvirt(const Libvirt&) = delete;
  Libvirt& operator=(const Libvirt&) = delete;
  ~Libvirt();

  Outcome Virsh(const std::vector<std::string>& arguments) const;

  // Starts a transient domain, and waits for the guest's first ticks.
  void Boot(const Guest& guest) const;

  // Of the domain, as vmsave takes it for --description.
  std::string MigratableXml() const;

  // "running", "paused"...; empty where libvirt knows no domain.
  std::string State() const;

  // libvirt notices the end of QEMU later than whoever ended it, and restores no domain that it takes for running.
  void WaitForEnd() const;

 private:
  std::string launcher_;
  ScratchDirectory directory_{"/tmp"};  // the names of sockets are short
  ProgramRun daemon_;
};

}  // namespace vmsave
