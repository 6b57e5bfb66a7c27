// Files that QEMU is handed as open descriptors, for migrations that it writes or reads by itself.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include "io/file_descriptor.h"
#include "qemu/migration_settings.h"
#include "qemu/qmp_client.h"

namespace vmsave {

class SaveGuard;

// A set of descriptors of one file in QEMU, from which it takes the one that fits its way of opening the file: its
// access mode and O_DIRECT are looked at. QEMU chooses the set's number, so that no set of its command line is hit.
// Not thread-safe. The destructor takes the set from QEMU, which keeps what it has opened from it; what QEMU then
// refuses (it may be gone) is passed over. With OnFailure::kLeave an exception leaves the set there, and QEMU, which
// may be busy for long, is not waited for.
class DescriptorSet {
 public:
  // `guard`, where there is one, is told of the set.
  DescriptorSet(QmpClient& qmp, OnFailure on_failure, SaveGuard* guard = nullptr)
      : qmp_(qmp), on_failure_(on_failure), guard_(guard) {}
  DescriptorSet(const DescriptorSet&) = delete;
  DescriptorSet& operator=(const DescriptorSet&) = delete;
  ~DescriptorSet();

  // QEMU gets a descriptor of its own (SCM_RIGHTS). Throws QmpError where it refuses it, and as QmpClient::Execute
  // does.
  void Add(const FileDescriptor& file);

  // What QEMU opens instead of a path: "/dev/fdset/ID". REQUIRES: Add was called.
  std::string path() const;

 private:
  QmpClient& qmp_;
  OnFailure on_failure_;
  SaveGuard* guard_;
  int exceptions_ = std::uncaught_exceptions();
  std::optional<std::int64_t> id_;  // once QEMU has chosen it
};

// Takes the sets of another process from QEMU, which it marked (their "opaque") with `mark`. Throws as
// QmpClient::Execute does.
void RemoveDescriptorSets(QmpClient& qmp, const std::string& mark);

}  // namespace vmsave
