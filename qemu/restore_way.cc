#include "qemu/restore_way.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "io/sparse_file.h"
#include "qemu/migration_settings.h"

namespace vmsave {
namespace {

constexpr std::array kBestFirst{RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kMultifd, RestoreWay::kStream};

[[noreturn]] void RefuseWish(const Image& image, RestoreWay way, std::string_view why) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot restore {}", image.path()),
              fmt::format("--via {} does not work here: {}", RestoreWayName(way), why), "leave --via out");
}

// Empty, or why no QEMU could take the image that way.
std::string WhyNever(RestoreWay way, const Image& image) {
  const bool fits = way != RestoreWay::kNative || image.has_fixed_offsets();
  return fits ? "" : "the image is a sequential stream";
}

class Chooser {
 public:
  Chooser(QmpClient& qmp, const Image& image, const RestoreWish& wish, const Interrupt& interrupt,
          const PrivateDirectory::Announce& announce)
      : qmp_(qmp),
        image_(image),
        wish_(wish),
        interrupt_(interrupt),
        announce_(announce),
        backends_(QueryMemoryBackends(qmp)) {}

  WayChoice Choose() {
    RefuseMemoryInUse(qmp_, backends_);
    if (wish_.way) {
      ChooseWished();
    } else {
      ChooseBest();
    }
    return std::move(choice_);
  }

 private:
  void ChooseWished() {
    if (const std::string why = WhyNot(*wish_.way); !why.empty()) RefuseWish(image_, *wish_.way, why);
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
    if (std::string why = WhyNever(way, image_); !why.empty()) return why;
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
      choice_.multifd = std::make_unique<MultifdIncoming>(qmp_, channels, interrupt_, announce_);
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
  const PrivateDirectory::Announce& announce_;
  std::vector<MemoryBackend> backends_;
  WayChoice choice_;
};

}  // namespace

bool MayHoldData(const MemoryBackend& backend) {
  if (backend.path.empty()) return false;
  std::error_code ignored;
  const std::filesystem::file_type type = std::filesystem::status(backend.path, ignored).type();
  if (type == std::filesystem::file_type::directory) return false;  // where QEMU has made a file of its own
  if (type != std::filesystem::file_type::regular) return true;     // a device (DAX) shows neither length nor holes
  try {
    const FileDescriptor file = OpenFile(backend.path, O_RDONLY | O_NONBLOCK);
    return NextData(file, FileOffset{0}, FileOffset{FileLength(file).value()}).has_value();
  } catch (const Error&) {
    return true;
  }
}

std::string_view RestoreWayName(RestoreWay way) {
  constexpr std::array<std::string_view, 4> kNames{"memory", "native", "multifd", "stream"};
  return kNames[static_cast<std::size_t>(way)];
}

void CheckWish(const Image& image, const RestoreWish& wish) {
  image.OpenForPages(wish.read.cache);
  if (!wish.way) return;
  if (const std::string why = WhyNever(*wish.way, image); !why.empty()) RefuseWish(image, *wish.way, why);
}

WayChoice ChooseWay(QmpClient& qmp, const Image& image, const RestoreWish& wish, const Interrupt& interrupt,
                    const PrivateDirectory::Announce& announce) {
  return Chooser(qmp, image, wish, interrupt, announce).Choose();
}

}  // namespace vmsave
