// Where a save gets a guest's RAM from.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "qemu/guest_ram.h"
#include "qemu/qmp_client.h"

namespace vmsave {

class SaveGuard;

enum class SaveSource {
  kMemory,   // it lies in shared backends: this process reads it itself
  kMultifd,  // QEMU sends them over parallel channels
  kQemu,     // QEMU writes the pages into the file itself (mapped-ram)
  kStream,   // QEMU sends them over one connection
};

// "memory", "multifd", "qemu", "stream".
std::string_view SaveSourceName(SaveSource source);

// Whether the guest runs while it is saved.
enum class LiveMode {
  kNo,        // it stands still
  kPrecopy,   // pages that it changes are saved again; the image is the guest at the end
  kSnapshot,  // QEMU keeps pages until they are saved; the image is the guest at the beginning
};

enum class ImageVersion { k2 = 2, k3 = 3 };

struct SourceWish {
  std::optional<SaveSource> source;  // else the best that works
  LiveMode live = LiveMode::kNo;
  ImageVersion version = ImageVersion::k2;
};

// Wishes that exclude each other, whatever the guest is.
struct WishConflict {
  std::string wishes;  // "--from memory and --live"
  std::string why;
};

// Nothing where the guest may be taken from `source`, as far as the wishes go; wish.source is not looked at.
std::optional<WishConflict> FindConflict(SaveSource source, const SourceWish& wish);

struct SourceChoice {
  SaveSource source{};
  std::string why_not_better;      // why the better ones that the wishes allow were not taken; empty if there is none
  std::vector<MappedBackend> ram;  // with kMemory
};

// Nothing of the guest is changed. Throws Error{kUsage} for wishes that exclude each other, Error{kFailed} where what
// was wished for does not work with this guest.
SourceChoice ChooseSource(QmpClient& qmp, const SourceWish& wish, SaveGuard* guard = nullptr);

}  // namespace vmsave
