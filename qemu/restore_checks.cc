#include "qemu/restore_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "qemu/serving.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kMemoryGranularity = 8192;  // QEMU rounds -m up to this (system/vl.c)
constexpr std::string_view kMuchRamAdvice = "give QEMU as much RAM as the saved guest had";

[[noreturn]] void Refuse(const Image& image, std::string_view why, std::string_view advice) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot restore {}", image.path()), why, advice);
}

// Exact, so that two sizes that differ look different.
std::string Size(ByteCount bytes) {
  constexpr std::uint64_t kMebibyte = 1 << 20;
  if (bytes.value() % kMebibyte == 0) return fmt::format("{} MiB", bytes.value() / kMebibyte);
  return fmt::format("{} KiB", bytes.value() / 1024);
}

// "pc-i440fx-7.2" names one machine type; "pc" and "q35" mean the newest that QEMU has.
bool IsVersioned(const std::string& machine) {
  return machine.find('.') != std::string::npos;
}

void CheckWaits(const Image& image, QmpClient& qmp, const std::string& status) {
  constexpr std::string_view kAdvice = "start it with -incoming defer";
  const std::string migration = QueryMigrationStatus(qmp);
  if (migration.starts_with("postcopy-")) {
    Refuse(
        image, fmt::format("QEMU has a part of a guest already (status {})", migration),
        fmt::format("where that is this image's: {} goes on with it", RecoverCommand(qmp.socket_path(), image.path())));
  }
  if (status != "inmigrate") {
    Refuse(image, fmt::format("QEMU does not wait for a guest (its status is {})", status), kAdvice);
  }
  if (migration != "none") {
    Refuse(image, fmt::format("QEMU is being given a guest already (status {})", migration), kAdvice);
  }
}

void CheckMachine(const Image& image, const std::string& machine) {
  const std::string& saved = image.contents().frame.machine;
  if (machine == saved) return;
  Refuse(image, fmt::format("it was saved on machine type {}, QEMU has {}", saved, machine),
         fmt::format("start QEMU with -machine {}", saved));
}

void CheckMemory(const Image& image, ByteCount memory) {
  const std::optional<ByteCount> saved = ReadDescription(image.description()).memory;
  if (!saved) return;
  const ByteCount given{RoundUp(memory.value(), kMemoryGranularity)};
  if (*saved == given) return;
  Refuse(image, fmt::format("the saved guest had {} of RAM, the command gives {}", Size(*saved), Size(given)),
         kMuchRamAdvice);
}

}  // namespace

void CheckCommandFits(const Image& image, const CommandFacts& command) {
  if (command.has_incoming) {
    throw Error(ErrorKind::kUsage, "cannot start that QEMU", "its command has -incoming",
                "leave it out: vmrestore adds its own");
  }
  if (command.machine_type && IsVersioned(*command.machine_type)) CheckMachine(image, *command.machine_type);
  if (command.memory) CheckMemory(image, *command.memory);
}

void CheckQemuFits(const Image& image, QmpClient& qmp, const GuestFacts& guest) {
  CheckWaits(image, qmp, guest.status);
  CheckMachine(image, guest.machine);
}

void CheckBackendsFit(const Image& image, const std::vector<MappedBackend>& backends) {
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  for (const MappedBackend& mapped : backends) {
    const auto block = std::ranges::find(blocks, mapped.block_name, &StreamBlock::name);
    if (block == blocks.end()) {
      Refuse(image, fmt::format("it has no RAM block {}, which QEMU has", mapped.block_name),
             "name the memory backends as the saved guest's");
    }
    if (block->length != mapped.backend.size) {
      Refuse(image,
             fmt::format("its RAM block {} has {}, QEMU's has {}", block->name, Size(block->length),
                         Size(mapped.backend.size)),
             kMuchRamAdvice);
    }
  }
}

}  // namespace vmsave
