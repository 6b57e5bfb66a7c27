// QEMU's migration capabilities and parameters, set for one migration and put back as they were.
#pragma once

#include <exception>
#include <set>
#include <string>

#include "qemu/qmp_client.h"

namespace vmsave {

// What becomes of the settings when an exception ends their scope. kLeave: for a QEMU that is not fit for use then.
enum class OnFailure { kPutBack, kLeave };

// The destructor puts everything back; what QEMU then refuses (it may be gone) is passed over.
class MigrationSettings {
 public:
  // Turns exactly the named capabilities on and all others off, except those that say nothing about the stream; and TLS
  // and compression off, with mode "normal". Throws where QEMU does not have one of the capabilities.
  MigrationSettings(QmpClient& qmp, const std::set<std::string>& capabilities_on, OnFailure on_failure);
  MigrationSettings(const MigrationSettings&) = delete;
  MigrationSettings& operator=(const MigrationSettings&) = delete;
  ~MigrationSettings();

  // Sets one parameter of migrate-set-parameters, unless it has that value already. Throws where QEMU refuses it.
  void SetParameter(const std::string& name, const QmpClient::Json& value);

  // The same, where QEMU has such a parameter; nothing where it is older.
  void SetParameterIfKnown(const std::string& name, const QmpClient::Json& value);

 private:
  void SetCapabilities(const std::set<std::string>& capabilities_on);
  void Set(const std::string& name, const QmpClient::Json& value);
  bool FailedSinceMade() const { return std::uncaught_exceptions() > exceptions_; }
  void PutBack() noexcept;
  void PutBack(const std::string& command, const QmpClient::Json& old) noexcept;

  QmpClient& qmp_;
  OnFailure on_failure_;
  int exceptions_ = std::uncaught_exceptions();
  QmpClient::Json old_capabilities_ = QmpClient::Json::array();
  QmpClient::Json parameters_;  // as they are now
  QmpClient::Json old_parameters_ = QmpClient::Json::object();
};

// The capabilities that this QEMU has, on or off.
std::set<std::string> QueryCapabilities(QmpClient& qmp);

// Whether this QEMU has such a parameter.
bool HasMigrationParameter(QmpClient& qmp, const std::string& name);

// Why this QEMU cannot send or take a guest over multifd; empty if it can, as far as it tells.
std::string WhyNoMultifd(QmpClient& qmp);

}  // namespace vmsave
