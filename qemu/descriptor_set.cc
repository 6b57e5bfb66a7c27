#include "qemu/descriptor_set.h"

#include <fmt/format.h>
#include <unistd.h>

#include <exception>

#include "qemu/save_guard.h"

namespace vmsave {

DescriptorSet::~DescriptorSet() {
  const bool failed = std::uncaught_exceptions() > exceptions_;
  if (!id_ || (failed && on_failure_ == OnFailure::kLeave)) return;
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    qmp_.Execute("remove-fd", {{"fdset-id", *id_}});
    if (guard_ != nullptr) guard_->NoteDescriptors("");
  } catch (const std::exception&) {
    return;  // QEMU is gone, or closes them when its monitor client has left
  }
}

void DescriptorSet::Add(const FileDescriptor& file) {
  const std::string mark = fmt::format("vmsave-{}", ::getpid());
  if (guard_ != nullptr) guard_->NoteDescriptors(mark);
  QmpClient::Json arguments{{"opaque", mark}};
  if (id_) arguments["fdset-id"] = *id_;
  const QmpClient::Uninterrupted uninterrupted(qmp_);  // else it is not known which set to remove
  id_ = qmp_.Execute("add-fd", arguments, file.number()).at("fdset-id").get<std::int64_t>();
}

std::string DescriptorSet::path() const {
  return fmt::format("/dev/fdset/{}", id_.value_or(-1));
}

void RemoveDescriptorSets(QmpClient& qmp, const std::string& mark) {
  for (const QmpClient::Json& set : qmp.Execute("query-fdsets")) {
    const QmpClient::Json& descriptors = set.at("fds");
    if (descriptors.empty() || descriptors.front().value("opaque", "") != mark) continue;
    qmp.Execute("remove-fd", {{"fdset-id", set.at("fdset-id")}});
  }
}

}  // namespace vmsave
