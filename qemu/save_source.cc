#include "qemu/save_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <vector>

#include "format/qemu_stream.h"
#include "qemu/migration_settings.h"
#include "qemu/multifd_sockets.h"

namespace vmsave {
namespace {

// kQemu comes behind kMultifd: QEMU's own writing is no faster, and much slower where zero pages lie between the
// others, and its pages have to be read back for their checksums (bench/README.md). But it needs no socket that QEMU
// can reach.
constexpr std::array kBestFirst{SaveSource::kMemory, SaveSource::kMultifd, SaveSource::kQemu, SaveSource::kStream};

std::string_view NameOf(LiveMode live) {
  return live == LiveMode::kSnapshot ? "--live=snapshot" : "--live";
}

std::string FromOption(SaveSource source) {
  return fmt::format("--from {}", SaveSourceName(source));
}

class Chooser {
 public:
  Chooser(QmpClient& qmp, const SourceWish& wish, SaveGuard* guard) : qmp_(qmp), wish_(wish), guard_(guard) {}

  SourceChoice Choose() {
    if (wish_.source) {
      TakeWished(*wish_.source);
    } else {
      TakeBest();
    }
    return std::move(choice_);
  }

 private:
  void TakeWished(SaveSource source) {
    if (const auto conflict = FindConflict(source, wish_)) {
      throw Error(ErrorKind::kUsage, conflict->wishes, conflict->why);
    }
    Take(source);
  }

  void TakeBest() {
    std::vector<std::string> why_not;
    for (const SaveSource source : kBestFirst) {
      if (FindConflict(source, wish_)) continue;  // the operator's wish, no news to him
      try {
        Take(source);
        break;
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::kInterrupted || qmp_.closed()) throw;
        why_not.emplace_back(error.why());
      }
    }
    choice_.why_not_better = fmt::format("{}", fmt::join(why_not, "; "));
  }

  // Throws where this guest cannot be saved that way.
  void Take(SaveSource source) {
    if (source == SaveSource::kMemory) MapMemory();
    if (source == SaveSource::kMultifd) TryMultifd();
    if (source == SaveSource::kQemu) TryQemu();
    choice_.source = source;
  }

  void MapMemory() {
    const std::vector<MemoryBackend> backends = QueryMemoryBackends(qmp_);
    if (const std::string why = WhyNotShared(backends); !why.empty()) throw DoesNotWork(SaveSource::kMemory, why);
    choice_.ram = MapBackends(qmp_, backends, MemoryMapping::Access::kRead);
  }

  void TryMultifd() {
    if (const std::string why = WhyNoMultifd(qmp_); !why.empty()) throw DoesNotWork(SaveSource::kMultifd, why);
    try {
      const MultifdListener as_for_a_save(qmp_, guard_);
    } catch (const Error& error) {
      throw DoesNotWork(SaveSource::kMultifd, error.why());
    }
  }

  void TryQemu() {
    if (HasCapability(kMappedRamCapability) && HasMigrationParameter(qmp_, "direct-io")) return;
    throw DoesNotWork(SaveSource::kQemu, Version() + " cannot write fixed offsets through two descriptors (9.1 can)");
  }

  static Error DoesNotWork(SaveSource source, std::string_view why) {
    return Error(ErrorKind::kFailed, FromOption(source) + " does not work with this guest", why, "leave --from out");
  }

  bool HasCapability(std::string_view name) { return QueryCapabilities(qmp_).contains(std::string(name)); }
  std::string Version() const { return fmt::format("QEMU {}.{}", qmp_.version().major, qmp_.version().minor); }

  QmpClient& qmp_;
  const SourceWish& wish_;
  SaveGuard* guard_;
  SourceChoice choice_;
};

}  // namespace

std::string_view SaveSourceName(SaveSource source) {
  constexpr std::array<std::string_view, 4> kNames{"memory", "multifd", "qemu", "stream"};
  return kNames[static_cast<std::size_t>(source)];
}

std::optional<WishConflict> FindConflict(SaveSource source, const SourceWish& wish) {
  const auto conflict = [source](std::string_view other, const char* why) {
    return WishConflict{fmt::format("{} and {}", FromOption(source), other), why};
  };
  if (source == SaveSource::kMemory && wish.live != LiveMode::kNo) {
    return conflict(NameOf(wish.live), "the guest must stand still for it");
  }
  if (source != SaveSource::kStream && wish.live == LiveMode::kSnapshot) {
    return conflict(NameOf(wish.live), "QEMU sends a snapshot as one stream");
  }
  if (source == SaveSource::kQemu && wish.version != ImageVersion::k3) {
    return conflict("image version 2", "QEMU writes --image-version 3 only");
  }
  return std::nullopt;
}

SourceChoice ChooseSource(QmpClient& qmp, const SourceWish& wish, SaveGuard* guard) {
  return Chooser(qmp, wish, guard).Choose();
}

}  // namespace vmsave
