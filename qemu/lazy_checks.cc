#include "qemu/lazy_checks.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <bit>
#include <map>
#include <sstream>

#include "qemu/guest_ram.h"
#include "qemu/migration_settings.h"

namespace vmsave {
namespace {

constexpr std::uint64_t kLongestHostPage = 2 << 20;

// Nothing where it cannot be looked at from here.
std::optional<long> FileSystemOf(const std::string& path) {
  struct statfs status {};
  if (::statfs(path.c_str(), &status) != 0) return std::nullopt;
  return status.f_type;
}

// Linux watches anonymous memory, tmpfs and hugetlbfs (userfaultfd(2)); and QEMU empties RAM by holes in its file.
std::string WhyNotLazy(const MemoryBackend& backend) {
  if (backend.type != "memory-backend-file") return "";
  const std::optional<long> system = FileSystemOf(backend.path);
  if (!system || *system == HUGETLBFS_MAGIC) return "";
  if (*system != TMPFS_MAGIC) {
    return fmt::format("RAM {} is a file on a disk, where nobody can watch it: put it into /dev/shm", backend.id);
  }
  if (!backend.shared) return fmt::format("RAM {} is a private mapping of a file: it needs share=on", backend.id);
  return "";
}

// The sizes that HMP `info ramblock` tells: "pc.ram    4 KiB  0x... 0x... 0x...".
std::map<std::string, ByteCount> ReadHostPages(const std::string& ramblocks) {
  std::map<std::string, ByteCount> pages;
  std::istringstream lines(ramblocks);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    std::string unit;
    std::uint64_t number = 0;
    if (!(words >> name >> number >> unit)) continue;
    const unsigned shift = unit == "KiB" ? 10 : unit == "MiB" ? 20 : unit == "GiB" ? 30 : 0;
    if (shift != 0 && number > 0 && number < 1024) pages.emplace(name, ByteCount{number << shift});
  }
  return pages;
}

bool IsPageSize(ByteCount size) {
  return std::has_single_bit(size.value()) && size >= kPageSize && size.value() <= kLongestHostPage;
}

std::string WhyNotHostPages(const std::map<std::string, ByteCount>& pages) {
  for (const auto& [name, page] : pages) {
    if (page.value() > kLongestHostPage) {
      return fmt::format("RAM {} is in pages of {} MiB: a guest would wait too long for each", name,
                         page.value() >> 20);
    }
  }
  return "";
}

// QEMU tries what it needs as soon as the capability is set, and its answer names what is missing (to some versions'
// standard error alone).
std::string WhyNoUserfault(QmpClient& qmp) {
  try {
    const MigrationSettings settings(qmp, {kPostcopyCapability}, OnFailure::kPutBack);
    return "";
  } catch (const QmpError& error) {
    return fmt::format(
        "QEMU cannot watch its memory ({}); it needs userfaultfd: set vm.unprivileged_userfaultfd=1, or let its user "
        "open /dev/userfaultfd (QEMU 8.1 or newer)",
        error.why());
  }
}

}  // namespace

std::string WhyNeverLazy(const Image& image) {
  if (!image.has_fixed_offsets()) return "the image is a sequential stream";
  return DeviceSections(image.device_state()) ? "" : "its device state does not end as QEMU's does";
}

void RefuseNeverLazy(const Image& image) {
  const std::string why = WhyNeverLazy(image);
  if (why.empty()) return;
  const std::string advice = image.has_fixed_offsets()
                                 ? "leave --lazy out"
                                 : fmt::format("vmimage convert --to 3 {0} {0}.v3 makes one that can", image.path());
  throw Error(ErrorKind::kFailed, fmt::format("cannot restore {} lazily", image.path()), why, advice);
}

std::string WhyNotLazy(QmpClient& qmp) {
  if (!QueryCapabilities(qmp).contains(kPostcopyCapability)) return "QEMU has no postcopy (4.0 has)";
  for (const MemoryBackend& backend : QueryMemoryBackends(qmp)) {
    if (std::string why = WhyNotLazy(backend); !why.empty()) return why;
  }
  if (std::string why = WhyNotHostPages(ReadHostPages(qmp.ExecuteHmp("info ramblock"))); !why.empty()) return why;
  return WhyNoUserfault(qmp);
}

std::vector<PostcopyBlock> QueryPostcopyBlocks(QmpClient& qmp, const Image& image) {
  const std::map<std::string, ByteCount> pages = ReadHostPages(qmp.ExecuteHmp("info ramblock"));
  std::vector<PostcopyBlock> blocks;
  for (const StreamBlock& block : image.contents().blocks) {
    const auto page = pages.find(block.name);
    blocks.push_back({block.name, block.length, page == pages.end() ? kPageSize : page->second});
    const PostcopyBlock& made = blocks.back();
    const auto refuse = [&](std::string_view why) {
      throw Error(ErrorKind::kFailed, fmt::format("cannot restore {} lazily", image.path()),
                  fmt::format("RAM {} {}", block.name, why));
    };
    if (!IsPageSize(made.host_page)) {
      refuse(fmt::format("is in pages of {} bytes, as QEMU says", made.host_page.value()));
    }
    if (made.length.value() % made.host_page.value() != 0) refuse("is no whole number of its pages in QEMU");
  }
  return blocks;
}

}  // namespace vmsave
