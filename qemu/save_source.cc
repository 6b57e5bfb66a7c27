#include "qemu/save_source.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "format/qemu_stream.h"
#include "qemu/migration_settings.h"
#include "qemu/qemu_directory.h"

namespace vmsave {
namespace {

// kQemu comes behind kMultifd: QEMU's own writing is no faster, and much slower where zero pages lie between the
// others, and its pages have to be read back for their checksums (bench/README.md). But it needs no socket that QEMU
// can reach.
constexpr std::array kBestFirst{SaveSource::kMemory, SaveSource::kMultifd, SaveSource::kQemu, SaveSource::kStream};

// Why these wishes exclude each other; empty where they do not.
std::string WhyNotTogether(SaveSource source, const SourceWish& wish) {
  if (source == SaveSource::kMemory && wish.live != LiveMode::kNo) return "the guest must stand still for it";
  if (source == SaveSource::kQemu && wish.version != ImageVersion::k3) return "it writes version 3 only";
  if (source != SaveSource::kStream && wish.live == LiveMode::kSnapshot) return "QEMU sends a snapshot as one stream";
  return "";
}

class Chooser {
 public:
  Chooser(QmpClient& qmp, const SourceWish& wish) : qmp_(qmp), wish_(wish) {}

  SourceChoice Choose() {
    if (wish_.source) {
      ChooseWished();
      return std::move(choice_);
    }
    for (const SaveSource source : kBestFirst) {
      std::string why = WhyNotTogether(source, wish_);
      if (!why.empty()) continue;  // the operator's wish, no news to him
      why = WhyNot(source);
      if (why.empty()) {
        choice_.source = source;
        break;
      }
      if (choice_.why_not_better.empty()) choice_.why_not_better = why;
    }
    return std::move(choice_);
  }

 private:
  void ChooseWished() {
    const std::string option = fmt::format("--from {}", SaveSourceName(*wish_.source));
    if (const std::string why = WhyNotTogether(*wish_.source, wish_); !why.empty()) {
      throw Error(ErrorKind::kUsage, fmt::format("{} does not go with the other options", option), why,
                  "leave --from out");
    }
    if (const std::string why = WhyNot(*wish_.source); !why.empty()) {
      throw Error(ErrorKind::kFailed, fmt::format("{} does not work with this guest", option), why, "leave --from out");
    }
    choice_.source = *wish_.source;
  }

  // Empty, or why this guest cannot be saved that way.
  std::string WhyNot(SaveSource source) {
    switch (source) {
      case SaveSource::kMemory:
        return WhyNotMemory();
      case SaveSource::kQemu:
        return WhyNotQemu();
      case SaveSource::kMultifd:
        return WhyNotMultifd();
      case SaveSource::kStream:
        break;
    }
    return "";
  }

  std::string WhyNotMemory() {
    const std::vector<MemoryBackend> backends = QueryMemoryBackends(qmp_);
    if (std::string why = WhyNotShared(backends); !why.empty()) return why;
    try {
      choice_.ram = MapBackends(qmp_, backends, MemoryMapping::Access::kRead);
      return "";
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInterrupted) throw;
      return error.what();
    }
  }

  std::string WhyNotQemu() {
    if (!HasCapability(std::string(kMappedRamCapability))) return Version() + " cannot write fixed offsets (9.0 can)";
    if (!HasMigrationParameter(qmp_, "direct-io")) return Version() + " cannot be given a file opened twice (9.1 can)";
    return "";
  }

  std::string WhyNotMultifd() {
    if (!HasCapability("multifd")) return Version() + " has no multifd (4.0 has)";
    try {
      const QemuDirectory for_its_sockets(qmp_);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }

  bool HasCapability(const std::string& name) { return QueryCapabilities(qmp_).contains(name); }
  std::string Version() const { return fmt::format("QEMU {}.{}", qmp_.version().major, qmp_.version().minor); }

  QmpClient& qmp_;
  const SourceWish& wish_;
  SourceChoice choice_;
};

}  // namespace

std::string_view SaveSourceName(SaveSource source) {
  constexpr std::array<std::string_view, 4> kNames{"memory", "multifd", "qemu", "stream"};
  return kNames[static_cast<std::size_t>(source)];
}

SourceChoice ChooseSource(QmpClient& qmp, const SourceWish& wish) {
  return Chooser(qmp, wish).Choose();
}

}  // namespace vmsave
