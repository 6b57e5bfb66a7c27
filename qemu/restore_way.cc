#include "qemu/restore_way.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "io/sparse_file.h"
#include "qemu/migration_settings.h"

namespace vmsave {
namespace {

constexpr std::array kBestFirst{RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kMultifd, RestoreWay::kStream};

// Whether a backend's file may hold anything from before. True where it cannot be looked at.
bool MayHoldData(const MemoryBackend& backend) {
  if (backend.path.empty() || std::filesystem::is_directory(backend.path)) return false;  // QEMU's own, fresh memory
  try {
    const FileDescriptor file = OpenFile(backend.path, O_RDONLY | O_NONBLOCK);
    return NextData(file, FileOffset{0}, FileOffset{FileLength(file).value()}).has_value();
  } catch (const Error&) {
    return true;
  }
}

class Chooser {
 public:
  Chooser(QmpClient& qmp, const Image& image, const RestoreWish& wish, const Interrupt& interrupt)
      : qmp_(qmp), image_(image), wish_(wish), interrupt_(interrupt), backends_(QueryMemoryBackends(qmp)) {}

  WayChoice Choose() {
    if (wish_.way) {
      ChooseWished();
    } else {
      ChooseBest();
    }
    return std::move(choice_);
  }

 private:
  void ChooseWished() {
    if (const std::string why = WhyNot(*wish_.way); !why.empty()) {
      throw Error(ErrorKind::kFailed, fmt::format("cannot restore {}", image_.path()),
                  fmt::format("--via {} does not work here: {}", RestoreWayName(*wish_.way), why), "leave --via out");
    }
    choice_.way = *wish_.way;
  }

  void ChooseBest() {
    for (const RestoreWay way : kBestFirst) {
      choice_.way = way;
      const std::string why = WhyNot(way);
      if (why.empty()) return;
      if (choice_.why_not_faster.empty()) choice_.why_not_faster = why;
    }
  }

  // Empty, or why this image cannot be restored into this QEMU that way.
  std::string WhyNot(RestoreWay way) {
    switch (way) {
      case RestoreWay::kMemory:
        return WhyNotMemory();
      case RestoreWay::kNative:
        return WhyNotNative();
      case RestoreWay::kMultifd:
        return WhyNotMultifd();
      case RestoreWay::kStream:
        break;
    }
    return "";
  }

  std::string WhyNotMemory() {
    if (std::string why = WhyNotShared(backends_); !why.empty()) return why;
    try {
      choice_.ram = MapBackends(qmp_, backends_, MemoryMapping::Access::kReadWrite);
      return "";
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFailed) throw;  // no other way would be right either
      return error.what();
    }
  }

  std::string WhyNotNative() {
    if (!image_.has_fixed_offsets()) return "the image is a sequential stream";
    if (!QueryCapabilities(qmp_).contains(std::string(kMappedRamCapability)))
      return Version() + " cannot read fixed offsets (9.0 can)";
    if (wish_.read.cache == CacheUse::kBypass && !HasMigrationParameter(qmp_, "direct-io")) {
      return Version() + " cannot bypass the cache (9.1 can)";
    }
    if (!wish_.way && wish_.checks == PageChecks::kOn && !wish_.pages_verified && image_.integrity()) {
      return "QEMU would not look at the checksums of its pages";
    }
    const auto used = std::ranges::find_if(backends_, MayHoldData);
    if (used == backends_.end()) return "";
    return fmt::format("memory backend {} has a file with data in it, and QEMU clears no page that the image has not",
                       used->id);
  }

  std::string WhyNotMultifd() {
    const unsigned channels = std::min(wish_.read.channels, kMaxMultifdChannels);
    if (!wish_.way && channels == 1) return "there is one channel only";
    if (std::string why = WhyNoMultifd(qmp_); !why.empty()) return why;
    try {
      choice_.multifd = std::make_unique<MultifdIncoming>(qmp_, channels, interrupt_);
      choice_.zero_blocks = ZeroBlocks();
      return "";
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFailed) throw;
      return error.what();
    }
  }

  // By both names that a backend's block may have. QEMU fills ROMs, which have no backend, by itself.
  std::set<std::string> ZeroBlocks() const {
    std::set<std::string> blocks;
    for (const MemoryBackend& backend : backends_) {
      if (!MayHoldData(backend)) blocks.insert({backend.id, "/objects/" + backend.id});
    }
    return blocks;
  }

  std::string Version() const { return fmt::format("QEMU {}.{}", qmp_.version().major, qmp_.version().minor); }

  QmpClient& qmp_;
  const Image& image_;
  const RestoreWish& wish_;
  const Interrupt& interrupt_;
  std::vector<MemoryBackend> backends_;
  WayChoice choice_;
};

}  // namespace

std::string_view RestoreWayName(RestoreWay way) {
  constexpr std::array<std::string_view, 4> kNames{"memory", "native", "multifd", "stream"};
  return kNames[static_cast<std::size_t>(way)];
}

WayChoice ChooseWay(QmpClient& qmp, const Image& image, const RestoreWish& wish, const Interrupt& interrupt) {
  return Chooser(qmp, image, wish, interrupt).Choose();
}

}  // namespace vmsave
