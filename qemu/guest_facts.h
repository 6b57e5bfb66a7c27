// What QMP tells about a guest.
#pragma once

#include <optional>
#include <string>

#include "qemu/migration_status.h"
#include "qemu/qmp_client.h"

namespace vmsave {

struct GuestFacts {
  std::string name;     // query-name; "guest" where it has none
  std::string uuid;     // empty where it has none
  std::string machine;  // "pc-i440fx-7.2"
  ByteCount memory;     // of the command line, without hotplugged
  std::size_t vcpus = 0;
  bool kvm = false;
  std::string status;  // run state: "running", "paused", "inmigrate", ...

  bool running() const { return status == "running"; }
};

GuestFacts QueryGuest(QmpClient& qmp);

// More RAM than the blocks of a migration of it can have, by what QEMU tells: its memory, every memory backend (a
// device shows as much of its own as is plugged), and room for video memory and ROMs.
ByteCount QueryMostRam(QmpClient& qmp, const GuestFacts& guest);

// The run state alone.
std::string QueryStatus(QmpClient& qmp);

// The description of a guest whose own is not at hand: the few elements of libvirt's domain XML that QMP can tell.
std::string MakeDescription(const GuestFacts& guest);

// What a description tells: libvirt's domain XML, or MakeDescription's. Fields that it does not tell are empty.
struct DescriptionFacts {
  std::string name;
  std::optional<ByteCount> memory;
  bool names_devices = false;  // libvirt's always does, MakeDescription's never
};
DescriptionFacts ReadDescription(const std::string& xml);

// Throws Error{kUsage} naming `source` where the text is no well-formed XML, or too long for a reader to take.
void CheckDescription(const std::string& xml, const std::string& source);

}  // namespace vmsave
