// A QEMU with the test guest, and what belongs to it: RAM, serial log, QMP socket.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qemu/qmp_client.h"
#include "tests/e2e/console.h"
#include "tests/e2e/program_run.h"
#include "tests/scratch_directory.h"

namespace vmsave {

enum class WhichQemu { kOld, kNew };

// What every guest is called.
inline constexpr const char* kGuestName = "vm1";

// From VMSAVE_QEMU_OLD or VMSAVE_QEMU_NEW; nothing where it is not set.
std::optional<std::string> QemuPath(WhichQemu which);

enum class Ram {
  kFile,       // a file in the test's directory
  kShm,        // a file in /dev/shm
  kMemfd,      // has no name
  kTwoBlocks,  // two NUMA nodes of half the size, one of a file, one of a memfd
  kTwoMemfds,  // the same of two memfds
  kHugePages,  // a memfd of pages of 2 MiB
  kPrivate,    // no backend of its own
};

// Empty, or why this host has no such RAM.
std::string WhyNotHere(Ram ram, unsigned memory_kib);

// What an operator would write into the command.
struct GuestShape {
  WhichQemu qemu = WhichQemu::kNew;
  std::string machine = "pc-i440fx-7.2";
  Ram ram = Ram::kFile;
  unsigned memory_kib = 64 << 10;
  std::string options = "fill=50 seed=7 tick=20 passes=4";  // of the test guest
};

// Files are named after `id`. The destructor kills every QEMU that was started with Command(), by whomever.
class Guest {
 public:
  Guest(const ScratchDirectory& directory, std::string id, const GuestShape& shape);
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;
  ~Guest();

  // A restored guest goes on in the log of the saved one, so that ticks must follow each other without a gap.
  void PrintTo(const Guest& other) { log_path_ = other.log_path_; }

  // The same, where the saved guest's log is to stay as it is.
  void PrintToCopyOf(const Guest& other) const;

  // Without QMP.
  std::vector<std::string> Command() const;

  // Starts QEMU with its QMP socket, and waits until it answers there.
  void Start(const std::vector<std::string>& more_options = {});
  // Starts QEMU and waits for the guest's first ticks.
  void Boot(const std::vector<std::string>& more_options = {});

  void Kill();
  // Processes that were started with Command(), the programs under test not counted.
  std::vector<pid_t> Processes() const;

  Console console() const { return Console(log_path_); }
  const GuestShape& shape() const { return shape_; }
  const std::string& log_path() const { return log_path_; }
  const std::string& ram_path() const { return ram_path_; }
  const std::string& qmp_path() const { return qmp_path_; }

  // QEMU serves one connection at a time: hold it for no longer than needed.
  std::unique_ptr<QmpClient> Connect() const;
  std::string Status() const;

 private:
  std::vector<std::string> RamOptions() const;

  GuestShape shape_;
  std::string log_path_;
  std::string ram_path_;
  std::string qmp_path_;
  std::string pid_path_;
  std::unique_ptr<ProgramRun> qemu_;
};

}  // namespace vmsave
