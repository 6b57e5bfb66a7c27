#include "qemu/descriptor_set.h"

#include <fmt/format.h>

#include <exception>

namespace vmsave {

DescriptorSet::~DescriptorSet() {
  const bool failed = std::uncaught_exceptions() > exceptions_;
  if (!id_ || (failed && on_failure_ == OnFailure::kLeave)) return;
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    qmp_.Execute("remove-fd", {{"fdset-id", *id_}});
  } catch (const std::exception&) {
    return;  // QEMU is gone, or closes them when its monitor client has left
  }
}

void DescriptorSet::Add(const FileDescriptor& file) {
  QmpClient::Json arguments{{"opaque", "vmsave"}};
  if (id_) arguments["fdset-id"] = *id_;
  const QmpClient::Uninterrupted uninterrupted(qmp_);  // else it is not known which set to remove
  id_ = qmp_.Execute("add-fd", arguments, file.number()).at("fdset-id").get<std::int64_t>();
}

std::string DescriptorSet::path() const {
  return fmt::format("/dev/fdset/{}", id_.value_or(-1));
}

}  // namespace vmsave
