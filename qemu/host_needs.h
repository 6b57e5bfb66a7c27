// Which hosts can take an image: what its machine type and its layout ask of QEMU and of libvirt. Pure knowledge of
// their releases; no file and no QEMU is asked.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "format/save_header.h"
#include "reader/image.h"

namespace vmsave {

// Of QEMU or of libvirt: "7.2".
struct Release {
  unsigned major;
  unsigned minor;
  auto operator<=>(const Release&) const = default;
};
std::string AsText(Release release);

// The releases of QEMU that have a machine type.
struct MachineReleases {
  std::optional<Release> since;       // nothing for a distribution's own type, or one without a version
  std::optional<Release> removed_in;  // nothing where no release so far has removed it
};

// `machine` as the stream names it: "pc-i440fx-7.2".
MachineReleases ReleasesWith(std::string_view machine);

// The releases that can read an image.
struct Readers {
  bool none = false;
  std::optional<Release> since{};  // nothing: any, or none
};

// QEMU by itself, which is given the file from where the stream starts; any for a sequential stream.
Readers QemuAlone(ImageKind kind);

// virsh restore, as far as version and layout are concerned: whether the description is a libvirt domain is another
// question (DescriptionFacts).
Readers Virsh(ImageKind kind, BodyFormat format);

// vmrestore makes any layout into what QEMU takes from here on.
inline constexpr Release kOldestQemuOfVmrestore{4, 0};

}  // namespace vmsave
