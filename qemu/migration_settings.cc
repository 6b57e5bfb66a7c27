#include "qemu/migration_settings.h"

#include <fmt/format.h>

#include "qemu/save_guard.h"

namespace vmsave {
namespace {

// It only reports on migrations; turning it off would take it from an operator who listens.
constexpr std::string_view kHarmless = "events";

struct Capability {
  std::string name;
  bool on;
};

std::vector<Capability> Query(QmpClient& qmp) {
  std::vector<Capability> capabilities;
  for (const auto& entry : qmp.Execute("query-migrate-capabilities")) {
    capabilities.push_back({entry.at("capability").get<std::string>(), entry.at("state").get<bool>()});
  }
  return capabilities;
}

bool PutBack(QmpClient& qmp, const std::string& command, const QmpClient::Json& old) noexcept {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp);
    qmp.Execute(command, old);
    return true;
  } catch (const std::exception&) {
    return false;  // where QEMU is gone, its settings went with it
  }
}

}  // namespace

bool PutBack(QmpClient& qmp, const OldMigrationSettings& old) noexcept {
  const bool parameters = old.parameters.empty() || PutBack(qmp, "migrate-set-parameters", old.parameters);
  return (old.capabilities.empty() || PutBack(qmp, "migrate-set-capabilities", {{"capabilities", old.capabilities}})) &&
         parameters;
}

MigrationSettings::MigrationSettings(QmpClient& qmp, const std::set<std::string>& capabilities_on, OnFailure on_failure,
                                     SaveGuard* guard)
    : qmp_(qmp), guard_(guard), on_failure_(on_failure) {
  parameters_ = qmp.Execute("query-migrate-parameters");
  try {
    // First: with mapped-ram on, QEMU takes no parameters while one of these is set.
    SetParameterIfKnown("tls-creds", "");
    SetParameterIfKnown("multifd-compression", "none");
    SetParameterIfKnown("mode", "normal");
    SetCapabilities(capabilities_on);
  } catch (...) {
    PutAllBack();
    throw;
  }
}

void MigrationSettings::SetCapabilities(const std::set<std::string>& capabilities_on) {
  QmpClient::Json wanted = QmpClient::Json::array();
  for (const std::string& name : capabilities_on) wanted.push_back({{"capability", name}, {"state", true}});
  for (const Capability& capability : Query(qmp_)) {
    const bool want_on = capabilities_on.contains(capability.name);
    if (capability.on != want_on && capability.name != kHarmless) {
      old_.capabilities.push_back({{"capability", capability.name}, {"state", capability.on}});
      if (!want_on) wanted.push_back({{"capability", capability.name}, {"state", false}});
    }
  }
  TellGuard();
  const QmpClient::Uninterrupted uninterrupted(qmp_);
  qmp_.Execute("migrate-set-capabilities", {{"capabilities", wanted}});
}

MigrationSettings::~MigrationSettings() {
  if (on_failure_ == OnFailure::kPutBack || !FailedSinceMade()) PutAllBack();
}

void MigrationSettings::PutAllBack() noexcept {
  const bool done = PutBack(qmp_, old_);
  if (done && guard_ != nullptr) guard_->NoteSettings({});
}

void MigrationSettings::TellGuard() {
  if (guard_ != nullptr) guard_->NoteSettings(old_);
}

void MigrationSettings::SetParameter(const std::string& name, const QmpClient::Json& value) {
  if (!parameters_.contains(name) || parameters_.at(name) != value) Set(name, value);
}

void MigrationSettings::SetParameterIfKnown(const std::string& name, const QmpClient::Json& value) {
  if (parameters_.contains(name) && parameters_.at(name) != value) Set(name, value);
}

void MigrationSettings::Set(const std::string& name, const QmpClient::Json& value) {
  PutBackInTheEnd(name);
  const QmpClient::Uninterrupted uninterrupted(qmp_);
  qmp_.Execute("migrate-set-parameters", {{name, value}});
  parameters_[name] = value;
}

void MigrationSettings::PutBackInTheEnd(const std::string& name) {
  if (!parameters_.contains(name) || old_.parameters.contains(name)) return;
  old_.parameters[name] = parameters_.at(name);
  TellGuard();
}

std::set<std::string> QueryCapabilities(QmpClient& qmp) {
  std::set<std::string> names;
  for (const Capability& capability : Query(qmp)) names.insert(capability.name);
  return names;
}

bool HasMigrationParameter(QmpClient& qmp, const std::string& name) {
  return qmp.Execute("query-migrate-parameters").contains(name);
}

std::string WhyNoMultifd(QmpClient& qmp) {
  if (QueryCapabilities(qmp).contains("multifd")) return "";
  return fmt::format("QEMU {}.{} has no multifd (4.0 has)", qmp.version().major, qmp.version().minor);
}

}  // namespace vmsave
